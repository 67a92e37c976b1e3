//! Rules that ask what a request's message is: which one a request falls under, and when its body has to be waited for.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use sidecar_decide::MessageType;
use sidecar_decide::Reason::{self, RouteNoMatch, RouteNoMethod, RouteNoPath};
use sidecar_decide::route::{Request, Sent};

use crate::fixture::{asked, found, route, routed};

fn known(name: &str) -> Sent {
    Sent::Known(MessageType::named(name).expect("a known type"))
}

fn typed(path: &str, message_type: &str) -> Value {
    json!({"path": {"type": "Exact", "value": path}, "messageType": message_type})
}

/// Routes that compete on some paths.
fn routes() -> Value {
    let any = json!([]);
    let prefix = json!({"path": {"type": "PathPrefix", "value": "/edev"}});
    let mut posted = typed("/posted", "EndDevice");
    posted["method"] = json!("POST");
    json!([
        route("response", &any, &json!([typed("/rsp", "DERControlResponse")])),
        route("json", &any, &json!([typed("/rsp", "json")])),
        route("exi", &any, &json!([typed("/rsp", "exi")])),
        route("rest", &any, &json!([{"path": {"type": "Exact", "value": "/rsp"}}])),
        route("method", &any, &json!([{"path": {"type": "Exact", "value": "/rsp"}, "method": "PUT"}])),
        route("device", &any, &json!([typed("/edev/1", "EndDevice")])),
        route("below", &any, &json!([prefix])),
        route("posted", &any, &json!([posted])),
    ])
}

#[test]
fn a_rule_gets_the_messages_it_asks_for() {
    let snapshot = routed(&routes());
    let (get, post, put) = (&Method::GET, &Method::POST, &Method::PUT);
    let rows: [(&str, &Method, Sent, Result<&str, Reason>); 17] = [
        ("/rsp", post, known("DERControlResponse"), Ok("response")),
        ("/rsp", post, known("json"), Ok("json")),
        ("/rsp", post, known("exi"), Ok("exi")),
        ("/rsp", post, known("EndDevice"), Ok("rest")),
        ("/rsp", post, known("other"), Ok("rest")),
        ("/rsp", get, Sent::Nothing, Ok("rest")),
        ("/rsp", post, Sent::Unread, Ok("rest")),
        // As with headers: a method goes first.
        ("/rsp", put, known("DERControlResponse"), Ok("method")),
        // What goes first and does not fit hides nothing behind it.
        ("/edev/1", post, known("EndDevice"), Ok("device")),
        ("/edev/1", post, known("Time"), Ok("below")),
        ("/edev/2", post, known("EndDevice"), Ok("below")),
        ("/posted", post, known("EndDevice"), Ok("posted")),
        ("/posted", post, known("Time"), Err(RouteNoMatch)),
        ("/posted", post, Sent::Nothing, Err(RouteNoMatch)),
        ("/posted", post, Sent::Unread, Err(RouteNoMatch)),
        ("/posted", get, known("EndDevice"), Err(RouteNoMethod)),
        ("/other", post, known("EndDevice"), Err(RouteNoPath)),
    ];
    for (path, method, message, expected) in rows {
        let request = Request { message, ..asked("h", path, method) };
        assert_eq!(found(&snapshot, "main", &request), expected, "{method} {path} {message:?}");
    }
}

#[test]
fn a_body_is_waited_for_where_a_rule_may_depend_on_it() {
    let snapshot = routed(&routes());
    let listener = snapshot.listener("main").expect("a listener of the document");
    assert!(listener.table.asks_for_messages());
    let (post, put) = (&Method::POST, &Method::PUT);
    let rows = [
        ("/rsp", post, true),
        ("/edev/1", post, true),
        ("/posted", post, true),
        // A rule that goes first does not ask.
        ("/rsp", put, false),
        ("/edev/2", post, false),
        ("/other", post, false),
    ];
    for (path, method, expected) in rows {
        assert_eq!(listener.table.depends_on_message(&asked("h", path, method)), expected, "{method} {path}");
    }
    let plain = routed(&json!([route("rest", &json!([]), &json!([{"method": "POST"}]))]));
    assert!(!plain.listener("main").expect("a listener").table.asks_for_messages());
}

#[test]
fn what_is_sent_is_told_by_the_head_that_is_forwarded() {
    let rows: [(&[(&str, &str)], Sent); 10] = [
        (&[], Sent::Nothing),
        (&[("content-type", "text/plain")], Sent::Nothing),
        (&[("content-type", "application/sep+xml")], Sent::Unread),
        (&[("content-type", "application/json")], known("json")),
        (&[("content-type", "application/sep-exi")], known("exi")),
        (&[("content-type", "application/xml; charset=utf-7")], known("other")),
        (&[("content-type", "application/xml"), ("content-type", "application/json")], known("other")),
        (&[("content-type", "application/json"), ("content-type", "application/json")], known("other")),
        (&[("content-type", "text/plain, application/json")], known("other")),
        (&[("content-type", "application/json"), ("connection", "close, Content-Type")], Sent::Nothing),
    ];
    for (fields, expected) in rows {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_bytes(name.as_bytes()).expect("a name"), HeaderValue::from_static(value));
        }
        assert_eq!(Sent::of(&headers), expected, "{fields:?}");
    }
}
