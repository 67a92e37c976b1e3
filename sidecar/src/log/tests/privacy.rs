//! What rows tell of whoever asked, and what they do not.

use super::*;

#[test]
fn of_an_address_rows_tell_what_they_may() {
    let told = |client_address, client: Client| {
        let (_folder, path) = folder();
        let options = StoreOptions { client_address, ..options(&path, whole(LARGE)) };
        // A stranger's refusal is in another table.
        let stranger = Record { peer: None, verdict: Verdict::Refused, ..request(1) };
        let batch = [request(0), stranger].map(|row| Box::new(Record { client_addr: Some(client), ..row }));
        block_on(async {
            let mut store = Store::open(&options, Opening::First).await.unwrap();
            store.write(&batch).await.unwrap();
            store.close_clean().await.unwrap();
        });
        ask(&path, "SELECT client_addr FROM requests")
    };
    let address = |text: &str| Client::Address(text.parse().unwrap());
    let network = Client::Network(Network::of("198.51.100.7".parse().unwrap()));
    let table = [
        (ClientAddress::Full, address("192.0.2.9:51000"), "192.0.2.9:51000"),
        (ClientAddress::Full, network, "198.51.100.0/24"),
        (ClientAddress::Network, address("192.0.2.9:51000"), "192.0.2.0/24"),
        (ClientAddress::Network, address("[::ffff:192.0.2.9]:51000"), "192.0.2.0/24"),
        (ClientAddress::Network, address("[2001:db8:7:9::1]:51000"), "2001:db8:7::/48"),
        (ClientAddress::Network, network, "198.51.100.0/24"),
        (ClientAddress::None, address("192.0.2.9:51000"), ""),
        (ClientAddress::None, address("[2001:db8:7:9::1]:51000"), ""),
        (ClientAddress::None, network, ""),
    ];
    for (client_address, client, expected) in table {
        let both = if expected.is_empty() { String::new() } else { format!("{expected}\n{expected}") };
        assert_eq!(told(client_address, client), both, "{client_address:?} {client:?}");
    }
}

#[test]
fn who_is_known_by_his_network_is_found_by_his_address() {
    let (_folder, path) = folder();
    let options = StoreOptions { client_address: ClientAddress::Network, ..options(&path, whole(LARGE)) };
    block_on(async {
        let mut store = Store::open(&options, Opening::First).await.unwrap();
        store.write(&[Box::new(request(0))]).await.unwrap();
        store.close_clean().await.unwrap();
    });
    for (client, expected) in [("192.0.2.200", 1), ("192.0.3.9", 0)] {
        let filter = Filter { client: Some(client.parse().unwrap()), limit: 10, ..Filter::default() };
        let printed = block_on(query::rows(&path, &filter, Output::Json, &mut Vec::new(), &Unread::default())).unwrap();
        assert_eq!(printed.rows, expected, "{client}");
    }
}
