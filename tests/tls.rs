//! RabbitMQ over TLS, as the program meets it: which certificates it trusts, and what it says of those that it does not.

mod support;

use std::path::Path;
use std::process::Output;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::Value;
use support::servers::PrivateRabbit;

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate")
}

/// A folder with an authority, a certificate that it gave for `localhost` alone, and another authority.
fn certificates() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ours = authority("the authority of this test");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let server = params.signed_by(&key, &ours).expect("a certificate");
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).expect("written");
    write("ca.pem", ours.pem());
    write("server.pem", server.pem());
    write("server.key", key.serialize_pem());
    write("other-ca.pem", authority("an authority that gave nothing").pem());
    folder
}

/// What `amends doctor` says of the broker at `url`, trusting the authorities in the file `roots` instead of the
/// system's.
async fn doctor(url: String, roots: &Path) -> Value {
    let home = tempfile::tempdir().expect("a temporary folder");
    let mut command = assert_cmd::Command::new(assert_cmd::cargo::cargo_bin!("amends"));
    let store = format!("sqlite://{}", home.path().join("amends.db").display());
    command.env_clear().env("HOME", home.path()).env("SSL_CERT_FILE", roots).timeout(support::PATIENCE);
    command.args(["doctor", "--output", "json", "--store", &store, "--broker", &url]);
    let run = tokio::task::spawn_blocking(move || command.output());
    let Output { stdout, stderr, .. } = run.await.expect("joined").expect("amends runs");
    let said = String::from_utf8_lossy(&stdout).into_owned();
    let document: Value = serde_json::from_str(&said)
        .unwrap_or_else(|error| panic!("{error}: {said} {}", String::from_utf8_lossy(&stderr)));
    assert!(!said.contains("guest:guest"), "the password is shown: {said}");
    let mut checks = document["items"].as_array().expect("checks").iter();
    checks.find(|check| check["check"] == "broker").expect("the broker is checked").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_trusted_by_its_authority_and_its_name() {
    let folder = certificates();
    let rabbit = PrivateRabbit::start_with_tls(folder.path()).await;
    let url = rabbit.tls_url();

    let good = doctor(url.clone(), &folder.path().join("ca.pem")).await;
    assert_eq!(good["result"], "ok", "{good}");

    let stranger = doctor(url.clone(), &folder.path().join("other-ca.pem")).await;
    assert_eq!(stranger["result"], "failed", "{stranger}");
    let found = stranger["found"].as_str().expect("text");
    assert!(found.contains("certificate") && found.contains("UnknownIssuer"), "{found}");

    // The certificate is for `localhost`, and this is another name of the same machine.
    let renamed = doctor(url.replace("localhost", "127.0.0.1"), &folder.path().join("ca.pem")).await;
    assert_eq!(renamed["result"], "failed", "{renamed}");
    let found = renamed["found"].as_str().expect("text");
    assert!(found.contains("not valid for name"), "{found}");

    // TLS asked of a server that speaks none.
    let plain = doctor(rabbit.url().replace("amqp://", "amqps://"), &folder.path().join("ca.pem")).await;
    assert_eq!(plain["result"], "failed", "{plain}");
}
