//! Good objects that together have every field there is.

use serde_json::{Value, json};

/// All of them.
pub(super) fn all() -> Vec<Value> {
    [routes(), identities()].concat()
}

/// Those of a kind.
pub(super) fn of(kind: &str) -> Vec<Value> {
    all().into_iter().filter(|object| object["kind"] == kind).collect()
}

/// The first of a kind whose name this is.
pub(super) fn named(name: &str) -> Value {
    all().into_iter().find(|object| object["metadata"]["name"] == name).unwrap()
}

fn route(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "postern.dev/v1alpha1", "kind": "ProxyRoute", "metadata": {"name": name}, "spec": spec,
        "status": {
            "conditions": [condition("Programmed", "True", "Programmed"), condition("Enclosed", "Unknown", "NotChecked"), condition("Ready", "False", "NotChecked")],
            "workloads": [{
                "name": "orders.deployment", "pods": 3, "started": 3, "programmed": 2, "rejected": 1, "unreachable": 0,
                "message": "1 of 3 refuses it",
            }],
            "totals": {"workloads": 1, "pods": 3, "started": 3, "programmed": 2, "rejected": 1, "unreachable": 0},
        },
    })
}

fn condition(kind: &str, status: &str, reason: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": "so it is",
        "observedGeneration": 1, "lastTransitionTime": "2026-11-20T00:00:00Z",
    })
}

fn routes() -> Vec<Value> {
    let everything = json!({
        "podSelector": {"matchLabels": {"app": "orders"}},
        "listener": listener(),
        "hostnames": ["orders.shop.svc.cluster.local", "*.example.com"],
        "rules": [reading(), moved()],
        "backendPolicy": backend_policy(),
        "limits": {
            "maxConnections": 1000, "maxRequestBodySize": "10Mi", "maxPendingRequests": 100, "pendingTimeout": "2s",
            "maxStreams": 1000, "maxTunnels": 10,
        },
        "forwarding": {"trustedHops": 1},
        "capture": capture(),
        "allowBypass": true,
    });
    let rule = json!({"name": "all", "allow": [{"anyone": {}}], "backendRefs": [{"localPort": 8080}]});
    let small = |listener: Value, rule: &Value| json!({"podSelector": {"matchLabels": {"app": "orders"}}, "listener": listener, "rules": [rule]});
    let mut asked = small(json!({"port": 8443}), &rule);
    asked["backendPolicy"] = json!({"healthCheck": {"grpc": {"service": "orders"}}});
    asked["rules"][0]["backendRefs"][0]["protocol"] = "HTTP2".into();
    let mut rewritten = small(json!({"port": 8443}), &rule);
    rewritten["rules"][0]["filters"] =
        json!([{"urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/all"}}}]);
    let mut redirected = small(json!({"port": 8443}), &rule);
    redirected["rules"][0] = json!({
        "name": "moved", "matches": [{"path": {"type": "PathPrefix", "value": "/old"}}], "allow": [{"anyone": {}}],
        "filters": [{"requestRedirect": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": ""}}}],
    });
    let mut connected = small(json!({"port": 8443}), &rule);
    connected["backendPolicy"] = json!({"healthCheck": {"tcp": {}}});
    vec![
        route("everything", &everything),
        route("asked-by-grpc", &asked),
        route("asked-by-tcp", &connected),
        route("rewritten", &rewritten),
        route("redirected", &redirected),
        route("plain", &small(json!({"port": 8080, "protocol": "HTTP", "address": "Loopback"}), &rule)),
        route("forwarded", &small(json!({"port": 5432, "protocol": "TLS"}), &rule)),
    ]
}

fn capture() -> Value {
    json!({
        "headers": [{"name": "x-tenant", "as": "Keep"}, {"name": "authorization", "as": "Sha256"}],
        "query": [{"name": "page*", "as": "Mask"}], "cookies": [{"name": "theme", "as": "Drop"}],
        "bodies": {"request": true, "response": false, "maxBytes": 4096},
    })
}

fn listener() -> Value {
    json!({
        "port": 8443, "address": "All", "protocol": "HTTPS",
        "tls": {
            "clientAuth": "Required", "minVersion": "1.3", "unknownServerName": "Refuse",
            "certificateRefs": [{"kind": "Secret", "name": "web-tls", "namespace": "certificates"}],
            "trust": [{
                "name": "partner", "caCertificateRefs": [{"kind": "ConfigMap", "name": "partner-ca"}],
                "vouchesFor": {"spiffe": ["partner.example"], "commonName": true},
            }],
        },
    })
}

fn reading() -> Value {
    json!({
        "name": "read",
        "matches": [{
            "path": {"type": "PathPrefix", "value": "/orders"}, "method": "GET",
            "headers": [{"name": "x-tier", "type": "Exact", "value": "gold"}],
            "queryParams": [{"name": "page", "type": "RegularExpression", "value": "[0-9]+"}],
            "messageType": "EndDeviceList",
        }],
        "allow": [
            {"identity": {"name": "billing", "namespace": "shop"}},
            {"identitySelector": {"matchLabels": {"tier": "partner"}}},
            {"serviceAccount": {"namespace": "web", "name": "front", "trustDomain": "cluster.local"}},
            {"spiffe": "spiffe://partner.example/ns/web/*"},
            {"verified": {"trust": "partner"}},
            {"anyone": {}},
        ],
        "mode": "Audit",
        "filters": [
            {"forwardIdentity": {
                "xForwardedClientCert": ["Hash", "URI"], "headers": [{"name": "x-client", "value": "Identity"}],
            }},
            {"requestHeaderModifier": header_changes()},
            {"responseHeaderModifier": header_changes()},
            {"urlRewrite": {
                "hostname": "orders.internal", "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/v2"},
            }},
        ],
        "backendRefs": [
            {"localPort": 8080, "weight": 2, "protocol": "HTTP"},
            {"name": "stock", "namespace": "stores", "port": 80},
            {"host": "orders.example.com", "port": 443, "tls": {
                "mode": "Mutual", "serverName": "orders.example.com",
                "caCertificateRefs": [{"kind": "ConfigMap", "name": "example-ca"}],
                "peers": ["spiffe://partner.example/ns/shop/sa/orders"],
            }},
        ],
        "timeouts": {"request": "10s", "backendRequest": "2s"},
    })
}

fn header_changes() -> Value {
    let header = json!({"name": "x-via", "value": "postern"});
    json!({"set": [header], "add": [header], "remove": ["x-old"]})
}

fn moved() -> Value {
    json!({
        "name": "moved",
        "matches": [{"path": {"type": "Exact", "value": "/old"}}],
        "allow": [{"anyone": {}}],
        "filters": [{"requestRedirect": {
            "scheme": "https", "hostname": "new.example.com", "port": 8443, "statusCode": 308,
            "path": {"type": "ReplaceFullPath", "replaceFullPath": "/new"},
        }}],
    })
}

fn backend_policy() -> Value {
    json!({
        "loadBalancer": {"type": "LeastRequest"},
        "pool": {
            "maxConnections": 100, "maxPending": 100, "pendingTimeout": "1s", "connectTimeout": "1s", "maxIdle": 10,
            "idleTimeout": "30s", "maxAge": "1h", "maxRequestsPerConnection": 1000,
        },
        "healthCheck": {
            "http": {"path": "/healthz", "host": "localhost:8080", "expectedStatuses": [200, 204]}, "interval": "10s",
            "intervalJitterPercent": 20, "timeout": "2s", "healthyThreshold": 1, "unhealthyThreshold": 2,
        },
        "outlierDetection": {
            "consecutiveLocalOriginFailures": 3, "consecutiveGatewayErrors": 5, "baseEjectionTime": "10s",
            "maxEjectionTime": "1m", "maxEjectionPercent": 100,
        },
    })
}

fn identity(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "postern.dev/v1alpha1", "kind": "ClientIdentity", "metadata": {"name": name}, "spec": spec,
        "status": {
            "conditions": [condition("Issued", "True", "Issued"), condition("Ready", "False", "Suspended")],
            "kind": "Issue",
            "subject": "spiffe://cluster.local/ns/shop/client/billing",
            "certificate": {
                "serial": "5a01", "notBefore": "2026-11-20T00:00:00Z", "notAfter": "2027-02-18T00:00:00Z",
                "renewalTime": "2027-01-19T00:00:00Z", "sha256": "0".repeat(64), "lfdi": "0".repeat(40),
                "sfdi": "0".repeat(12), "spiffeId": "spiffe://cluster.local/ns/shop/client/billing",
                "chain": "-----BEGIN CERTIFICATE-----",
            },
            "enforced": {"started": 20, "enforced": 20},
        },
    })
}

fn identities() -> Vec<Value> {
    let digest = format!("sha256:{}", "0".repeat(64));
    let certificate = json!({
        "commonName": "billing", "uris": ["urn:example:billing"], "dnsNames": ["billing.shop.svc"], "duration": "720h",
        "renewBefore": "240h", "profile": "Default",
    });
    let issue = json!({
        "issue": {"secretName": "billing", "privateKey": {"algorithm": "RSA", "size": 2048}, "keystore": "PKCS12"},
        "certificate": certificate, "state": "Suspended", "acceptIssuedAfter": "2026-11-20T00:00:00Z",
    });
    let external = json!({"external": {
        "trust": {
            "caCertificateRefs": [{"kind": "ConfigMap", "name": "utility-ca"}],
            "vouchesFor": {"spiffe": ["utility.example"], "commonName": true},
        },
        "uris": ["spiffe://utility.example/meter/1"], "dnsNames": ["meter-1.utility.example"], "commonNames": ["Meter 1"],
        "fingerprints": [digest], "lfdi": ["0".repeat(40)], "sfdi": ["000000000000"], "serials": ["5A:01"],
        "spki": [digest],
    }});
    vec![
        identity("issued", &issue),
        identity("requested", &json!({"csr": {"request": "LS0tLQ=="}, "certificate": {}})),
        identity("account", &json!({"serviceAccount": {"name": "front"}})),
        identity("external", &external),
    ]
}
