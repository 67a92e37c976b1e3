//! Where a server is and as whom it is asked: a URL as libpq takes it. What would be weaker than it reads is refused.

use std::fmt;
use std::path::PathBuf;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

/// Where, and as whom. What shows it shows no password.
#[derive(Clone)]
pub struct Target {
    pub(crate) config: Config,
    authorities: Option<PathBuf>,
}

/// What is wrong with a URL; never what it says, which may be a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; write postgres://USER@HOST/DATABASE")]
pub struct TargetError(String);

impl Target {
    /// Reads a URL. Several hosts are tried in turn, and only one that takes writes is used. Without `sslmode` a server on
    /// TCP is verified.
    ///
    /// # Errors
    /// With what is wrong.
    pub fn parse(url: &str) -> Result<Self, TargetError> {
        let wrong = |text: &str| TargetError(text.to_owned());
        let url = url.trim();
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(wrong("it does not begin with postgres://"));
        }
        let (rest, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut is_plain, mut authorities, mut others) = (false, None, Vec::new());
        for option in query.split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=').unwrap_or((option, "")) {
                ("sslmode", "verify-full") => {}
                ("sslmode", "disable") => is_plain = true,
                ("sslmode", _) => {
                    return Err(wrong("its sslmode is neither verify-full nor disable, and others verify nobody"));
                }
                ("sslrootcert", path) => authorities = Some(PathBuf::from(path.replace("%2F", "/"))),
                _ => others.push(option),
            }
        }
        let config = format!("{rest}?{}", others.join("&")).parse::<Config>();
        let mut config = config.map_err(|error| TargetError(error.to_string()))?;
        if config.get_hosts().is_empty() {
            return Err(wrong("it names no host"));
        }
        if config.get_user().is_none_or(str::is_empty) {
            return Err(wrong("it names no user"));
        }
        let is_local = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        let mode = if is_plain || is_local { SslMode::Disable } else { SslMode::Require };
        config.ssl_mode(mode).target_session_attrs(TargetSessionAttrs::ReadWrite).application_name("postern");
        Ok(Self { config, authorities })
    }

    /// Whether who answers is to be verified.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.config.get_ssl_mode() == SslMode::Require
    }

    /// One for each host, in their order: together they would share the time that there is to connect.
    pub(crate) fn hosts(&self) -> Vec<Config> {
        let (all, ports) = (&self.config, self.config.get_ports());
        let one = |(index, host): (usize, &Host)| {
            let mut one = Config::new();
            match host {
                Host::Tcp(name) => one.host(name),
                Host::Unix(path) => one.host_path(path),
            };
            one.ssl_mode(all.get_ssl_mode())
                .ssl_negotiation(all.get_ssl_negotiation())
                .channel_binding(all.get_channel_binding())
                .target_session_attrs(all.get_target_session_attrs())
                .keepalives(all.get_keepalives())
                .keepalives_idle(all.get_keepalives_idle());
            all.get_hostaddrs().get(index).map(|address| one.hostaddr(*address));
            ports.get(index).or(ports.first()).map(|port| one.port(*port));
            all.get_user().map(|user| one.user(user));
            all.get_password().map(|password| one.password(password));
            all.get_dbname().map(|name| one.dbname(name));
            all.get_options().map(|options| one.options(options));
            all.get_application_name().map(|name| one.application_name(name));
            all.get_connect_timeout().map(|time| one.connect_timeout(*time));
            all.get_tcp_user_timeout().map(|time| one.tcp_user_timeout(*time));
            all.get_keepalives_interval().map(|time| one.keepalives_interval(time));
            all.get_keepalives_retries().map(|retries| one.keepalives_retries(retries));
            one
        };
        all.get_hosts().iter().enumerate().map(one).collect()
    }

    /// File with the authorities that may vouch for the server, `sslrootcert` of the URL.
    #[must_use]
    pub fn authorities(&self) -> Option<&PathBuf> {
        self.authorities.as_ref()
    }

    /// The same for whoever only reads: a standby will do.
    #[must_use]
    pub fn to_read(mut self) -> Self {
        self.config.target_session_attrs(TargetSessionAttrs::Any);
        self
    }

    /// Whether the URL has a password.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.config.get_password().is_some()
    }

    /// The same with this password.
    #[must_use]
    pub fn with_password(mut self, password: &[u8]) -> Self {
        self.config.password(password);
        self
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("hosts", &self.config.get_hosts()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_tcp_is_verified_unless_the_url_says_otherwise() {
        let table = [
            ("postgres://a@db/log", true, None),
            ("postgresql://a:p@db:1,db2:2/log?sslmode=verify-full\n", true, None),
            ("postgres://a@db/log?sslmode=disable", false, None),
            ("postgres://a@/log?host=/run/pg&port=9", false, None),
            ("postgres://a@db/log?sslrootcert=%2Fca.crt&connect_timeout=3", true, Some("/ca.crt")),
        ];
        for (url, is_verified, authorities) in table {
            let target = Target::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            let told = (target.is_verified(), target.authorities().map(|path| path.to_str().unwrap_or_default()));
            assert_eq!(told, (is_verified, authorities), "{url}");
        }
    }

    #[test]
    fn each_host_is_asked_in_its_turn_and_as_all() {
        let text = "postgres://a:p@db:5,db2:6/log?sslmode=disable&connect_timeout=3&options=-c%20b%3Dc&keepalives=0&\
                    keepalives_idle=7&keepalives_interval=8&keepalives_retries=9&tcp_user_timeout=4&channel_binding=disable";
        let target = Target::parse(text).expect("a URL");
        let expected: Vec<_> = ["db:5", "db2:6"]
            .map(|host| Target::parse(&text.replace("db:5,db2:6", host)).expect("a URL").config)
            .into();
        assert_eq!(target.hosts(), expected);
        let local = Target::parse("postgres://a@%2Frun%2Fpg:7/log").expect("a URL");
        assert_eq!(local.hosts(), [local.config]);
    }

    #[test]
    fn what_is_wrong_is_told_without_the_password() {
        let table = [
            ("mysql://a:secret@db", "it does not begin with postgres://"),
            ("postgres://db/log", "it names no user"),
            ("postgres://a:secret@/log", "it names no host"),
            (
                "postgres://a:secret@db/log?sslmode=require",
                "its sslmode is neither verify-full nor disable, and others verify nobody",
            ),
        ];
        for (url, expected) in table {
            let error = Target::parse(url).map(|_| ()).map_err(|error| error.to_string());
            assert_eq!(error, Err(format!("{expected}; write postgres://USER@HOST/DATABASE")), "{url}");
        }
        for url in
            ["postgres://a:secret@db:x/log", "postgres://a:secret@db/log?sslkey=x", "postgres://a:secret@db/log?x"]
        {
            let error = Target::parse(url).map(|_| ()).map_err(|error| error.to_string());
            assert!(error.as_ref().is_err_and(|error| !error.contains("secret")), "{url}: {error:?}");
        }
        assert!(!format!("{:?}", Target::parse("postgres://a:secret@db").expect("a URL")).contains("secret"));
    }
}
