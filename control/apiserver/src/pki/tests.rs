use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::identity::Identity;

fn subject(names: &[&str]) -> Subject {
    Subject {
        user: "system:node:n1".into(),
        groups: vec!["system:nodes".into(), "extra".into()],
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        client: true,
        server: true,
    }
}

#[test]
fn the_authority_outlives_a_restart_and_its_files_are_private() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let first = Authority::open(&data).unwrap().certificate().to_owned();
    assert_eq!(Authority::open(&data).unwrap().certificate(), first);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data.join("pki")), 0o700);
    assert_eq!(mode(&data.join("pki/ca.key")), 0o600);
    assert_eq!(mode(&data.join("pki/ca.crt")), 0o600);
}

#[test]
fn a_leaf_names_user_and_groups() {
    let dir = tempfile::tempdir().unwrap();
    let leaf = Authority::open(dir.path())
        .unwrap()
        .issue(&subject(&["10.0.0.1", "n1"]))
        .unwrap();
    let (certificates, _) = leaf.to_rustls().unwrap();
    let identity = Identity::of_certificate(&certificates[0]).unwrap();
    assert_eq!(identity.user, "system:node:n1");
    assert_eq!(
        identity.groups,
        ["system:nodes", "extra", "system:authenticated"]
    );
}

#[test]
fn bad_names_and_too_many_groups_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path()).unwrap();
    let error = authority.issue(&subject(&["not a name"])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "\"not a name\" is neither an IP address nor a DNS name"
    );
    let mut many = subject(&[]);
    many.groups.push("third".into());
    assert!(matches!(authority.issue(&many), Err(PkiError::Groups(_))));
}

#[test]
fn a_damaged_authority_is_told_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    Authority::open(dir.path()).unwrap();
    std::fs::write(dir.path().join("pki/ca.key"), "junk").unwrap();
    let error = Authority::open(dir.path()).err().unwrap();
    assert!(
        error
            .to_string()
            .starts_with("the certificate authority in "),
        "{error}"
    );
}
