//! What sidecars answer, and what answers in their place.

use std::net::Ipv4Addr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{AskError, Asker};
use crate::index::{ObjectName, Pod};
use crate::limits::STATUS_BYTES;

fn pod(uid: &str) -> Pod {
    Pod {
        name: ObjectName::new("shop", "orders-1"),
        uid: uid.to_owned(),
        workload: "orders".to_owned(),
        service_account: "default".to_owned(),
        labels: [].into(),
        ports: [].into(),
        address: Some(Ipv4Addr::LOCALHOST.into()),
        is_started: true,
        is_ending: false,
        gate: crate::inject::gate::Gate::There,
        touched: None,
    }
}

fn status() -> Value {
    let part = json!({"loaded": "aaaaaaaaaaaa"});
    json!({
        "contract": {"min": "1.0", "max": "1.3"},
        "podUid": "u1",
        "parts": {"trust": part, "identity": part, "identities": part, "policy": part, "endpoints": part},
        "routes": {"shop/orders": "bbbbbbbbbbbb"},
        "ready": true,
    })
}

/// Asks something that answers every connection with these bytes.
async fn ask(answer: Vec<u8>) -> Result<super::Answer, AskError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let serving = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut head = [0; 1024];
        let _ = stream.read(&mut head).await;
        let _ = stream.write_all(&answer).await;
        std::future::pending::<()>().await;
    };
    let (asker, pod) = (Asker::new(port), pod("u1"));
    tokio::select! {
        () = serving => unreachable!("it serves until it is dropped"),
        answer = asker.ask(&pod) => answer,
    }
}

fn response(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[tokio::test]
async fn an_answer_is_read_and_what_is_new_in_it_is_left() {
    let mut newer = status();
    newer["exposedPorts"] = json!([8080]);
    newer["parts"]["policy"]["since"] = json!("yesterday");
    for status in [status(), newer] {
        let answer = ask(response("200 OK", &status.to_string())).await.expect("an answer");
        assert_eq!(answer.routes["shop/orders"], "bbbbbbbbbbbb");
        assert_eq!(answer.parts["policy"].loaded, "aaaaaaaaaaaa");
        assert_eq!(answer.contract.max.to_string(), "1.3");
    }
}

#[tokio::test]
async fn what_is_no_answer_of_this_pod_is_none() {
    let mut other = status();
    other["podUid"] = json!("u2");
    let found = ask(response("200 OK", &other.to_string())).await;
    assert_eq!(found, Err(AskError::OtherPod(Ipv4Addr::LOCALHOST.into())));
    let large = format!("{{\"routes\": \"{}\"}}", "x".repeat(STATUS_BYTES));
    for (case, answer) in [
        ("another status", response("404 Not Found", "")),
        ("no JSON", response("200 OK", "hello")),
        ("too large", response("200 OK", &large)),
        ("no HTTP", b"hello\r\n\r\n".to_vec()),
    ] {
        assert!(matches!(ask(answer).await, Err(AskError::Unreadable(..))), "{case}");
    }
}

#[tokio::test]
async fn whoever_cannot_be_asked_is_told_apart() {
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let port = nobody.local_addr().expect("its address").port();
    // It accepts into its queue, and nobody ever answers.
    tokio::time::pause();
    assert!(matches!(Asker::new(port).ask(&pod("u1")).await, Err(AskError::Timeout(_))));
    drop(nobody);
    assert!(matches!(Asker::new(port).ask(&pod("u1")).await, Err(AskError::Connect(..))));
    let unborn = Pod { address: None, ..pod("u1") };
    assert_eq!(Asker::new(port).ask(&unborn).await, Err(AskError::NoAddress));
}
