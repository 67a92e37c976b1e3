//! The limits that refuse, by name: a reason says what happened, its limiter what to raise.

use std::fmt;

use crate::reason::Reason;

/// Makes the enum, the list of all its variants and their names of one table.
macro_rules! limiters {
    ($($(#[$doc:meta])+ $limiter:ident = $name:literal;)+) => {
        /// A limit that refused something. Closed; fields of the configuration have their own names and a dot in them, the
        /// others are bounds of the program.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Limiter {
            $($(#[$doc])+ $limiter,)+
        }

        impl Limiter {
            /// How many there are.
            const COUNT: usize = [$(Self::$limiter),+].len();

            /// Every limiter, in the table's order.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$limiter),+];

            /// The name in rows and metric labels.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$limiter => $name,)+
                }
            }
        }
    };
}

limiters! {
    /// Connections of clients at once.
    MaxConnections = "limits.maxConnections";
    /// Requests at once that wait for their response's head.
    MaxPendingRequests = "limits.maxPendingRequests";
    /// Requests and connections that are passed on at once.
    MaxStreams = "limits.maxStreams";
    /// Tunnels at once.
    MaxTunnels = "limits.maxTunnels";
    /// Bytes of one request's body.
    MaxRequestBodySize = "limits.maxRequestBodySize";
    /// Connections to one address at once, where none came free in time.
    PoolMaxConnections = "pool.maxConnections";
    /// Requests that wait for a connection to one address.
    PoolMaxPending = "pool.maxPending";
    /// How long a request waits for a connection that is being made.
    PoolPendingTimeout = "pool.pendingTimeout";
    /// Connections to all upstreams at once, which the hard limit of open files bounds.
    OpenFiles = "openFiles";
    /// Handshakes at once.
    Handshakes = "handshakes";
    /// Bytes of what an application is told of its caller.
    IdentitySize = "identitySize";
    /// How long nothing may pass.
    IdleTime = "idleTime";
}

impl fmt::Display for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Reason {
    /// The limit behind the reason, where it is always the same one. Behind `upstream_pool_full` there are several.
    #[must_use]
    pub const fn limiter(self) -> Option<Limiter> {
        Some(match self {
            Self::LimitConnections => Limiter::MaxConnections,
            Self::LimitPending => Limiter::MaxPendingRequests,
            Self::LimitStreams => Limiter::MaxStreams,
            Self::LimitTunnels => Limiter::MaxTunnels,
            Self::LimitBodySize => Limiter::MaxRequestBodySize,
            Self::LimitIdentitySize => Limiter::IdentitySize,
            Self::LimitHandshakes => Limiter::Handshakes,
            Self::LimitIdle => Limiter::IdleTime,
            _ => return None,
        })
    }
}
