//! One lookup of a name: both families, of each name that it may stand for until one has addresses.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use domain::base::iana::Rcode;
use domain::base::{Message, MessageBuilder, Name, Rtype};
use domain::net::client::dgram_stream;
use domain::net::client::protocol::{TcpConnect, UdpConnect};
use domain::net::client::request::{RequestMessage, SendRequest as _};
use domain::rdata::{A, Aaaa, Soa};
use thiserror::Error;
use tokio::time::timeout;

use super::known::Answer;
use super::system::Resolving;
use crate::limits::{DNS_HOSTS_TTL, DNS_TTL_MIN};

/// Whether a hosts file's addresses are all that is asked for.
pub fn of_hosts(addresses: Vec<IpAddr>) -> Option<[Answer; 2]> {
    if addresses.is_empty() {
        return None;
    }
    let (four, six): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv4);
    Some([four, six].map(|family| match family.is_empty() {
        true => Answer::Nothing(DNS_HOSTS_TTL),
        false => Answer::Found(family, DNS_HOSTS_TTL),
    }))
}

/// Looks a name up, IPv4 and IPv6.
pub async fn lookup(name: &str, resolving: &Resolving) -> [Answer; 2] {
    let mut failed = None;
    let mut nothing = [Answer::Nothing(DNS_TTL_MIN), Answer::Nothing(DNS_TTL_MIN)];
    for candidate in resolving.candidates(name) {
        let (four, six) = tokio::join!(ask(&candidate, Rtype::A, resolving), ask(&candidate, Rtype::AAAA, resolving));
        let error = four.as_ref().err().or(six.as_ref().err()).cloned();
        let answers = [four, six].map(|asked| asked.unwrap_or_else(|error| Answer::Failed(error.to_string())));
        if answers.iter().any(|answer| matches!(answer, Answer::Found(..))) {
            return answers;
        }
        match error {
            None => nothing = answers,
            // It may be the fault of this name's own servers: the C library goes on, too.
            Some(LookupError::Refused(_)) => failed = error,
            // Nobody knows whether it has addresses. Those of the next could be somebody else's.
            Some(error) => return failure(&error),
        }
    }
    failed.map_or(nothing, |error| failure(&error))
}

fn failure(error: &LookupError) -> [Answer; 2] {
    [Answer::Failed(error.to_string()), Answer::Failed(error.to_string())]
}

/// Why there is no answer that can be believed.
#[derive(Clone, Debug, Error)]
enum LookupError {
    /// A server answers so, which is no answer.
    #[error("{0}")]
    Refused(Rcode),
    /// What came cannot be read.
    #[error("malformed answer: {0}")]
    Malformed(String),
    /// No server could be asked.
    #[error("{0}")]
    Transport(String),
    /// None answered.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// It is not one that DNS can have.
    #[error("not a name: {0}")]
    Name(String),
}

/// Asks one server after the other for one family of one name, until one answers.
async fn ask(name: &str, family: Rtype, resolving: &Resolving) -> Result<Answer, LookupError> {
    let name = Name::<Vec<u8>>::from_str(name).map_err(|error| LookupError::Name(error.to_string()))?;
    let mut last = LookupError::Timeout(resolving.timeout);
    for server in (0..resolving.attempts).flat_map(|_| &resolving.servers) {
        let asked = timeout(resolving.timeout, exchange(*server, &name, family)).await;
        match asked.unwrap_or(Err(LookupError::Timeout(resolving.timeout))).and_then(|message| read(&message, family)) {
            Ok(answer) => return Ok(answer),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// One question over UDP, and over TCP where the answer is too long for that.
async fn exchange(server: SocketAddr, name: &Name<Vec<u8>>, family: Rtype) -> Result<Message<Bytes>, LookupError> {
    let transport = |error: &dyn ToString| LookupError::Transport(error.to_string());
    let mut message = MessageBuilder::new_vec();
    message.header_mut().set_rd(true);
    let mut message = message.question();
    message.push((name, family)).map_err(|error| transport(&error))?;
    let request = RequestMessage::new(message.into_message()).map_err(|error| transport(&error))?;
    let (udp, tcp) = (UdpConnect::new(server), TcpConnect::new(server));
    let (connection, stream) = dgram_stream::Connection::new(udp, tcp);
    let mut asking = connection.send_request(request);
    tokio::select! {
        answer = asking.get_response() => answer.map_err(|error| transport(&error)),
        () = stream.run() => Err(transport(&"the connection ended")),
    }
}

/// What an answer says of one family.
fn read(message: &Message<Bytes>, family: Rtype) -> Result<Answer, LookupError> {
    let rcode = message.header().rcode();
    if rcode != Rcode::NOERROR && rcode != Rcode::NXDOMAIN {
        return Err(LookupError::Refused(rcode));
    }
    let malformed = |error: &dyn ToString| LookupError::Malformed(error.to_string());
    let owner = message.canonical_name().ok_or_else(|| malformed(&"aliases in a circle"))?;
    let (mut addresses, mut ttl) = (Vec::new(), u32::MAX);
    for record in message.answer().map_err(|error| malformed(&error))? {
        let record = record.map_err(|error| malformed(&error))?;
        // An answer is as old as the oldest alias on the way.
        ttl = ttl.min(record.ttl().as_secs());
        let address: Option<IpAddr> = match family {
            Rtype::A => record.to_record::<A>().ok().flatten().map(|record| record.data().addr().into()),
            _ => record.to_record::<Aaaa>().ok().flatten().map(|record| record.data().addr().into()),
        };
        addresses.extend(address.filter(|_| record.owner() == owner));
    }
    if addresses.is_empty() {
        return Ok(Answer::Nothing(negative_ttl(message)));
    }
    Ok(Answer::Found(addresses, Duration::from_secs(ttl.into())))
}

/// How long "there is none" counts (RFC 2308 §5).
fn negative_ttl(message: &Message<Bytes>) -> Duration {
    let authorities = message.authority().ok();
    let mut starts = authorities.into_iter().flat_map(|section| section.limit_to::<Soa<_>>().flatten());
    let seconds = starts.next().map(|start| start.ttl().as_secs().min(start.data().minimum().as_secs()));
    seconds.map_or(DNS_TTL_MIN, |seconds| Duration::from_secs(seconds.into()))
}
