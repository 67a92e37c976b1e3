//! The API of Postern: what users apply, `ProxyRoute` and `ClientIdentity`, and what they are told. No IO.
