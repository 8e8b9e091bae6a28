use super::*;

type Check = fn(&str) -> Complaints;

#[test]
fn good_and_bad_names() {
    let long = "a".repeat(64);
    let cases: &[(Check, &str, bool)] = &[
        (label, "my-name", true),
        (label, "1-a", true),
        (label, "My", false),
        (label, "a.b", false),
        (label, "-a", false),
        (label, "", false),
        (label, &long, false),
        (dns1035, "web", true),
        (dns1035, "1web", false),
        (subdomain, "a.b-c.9", true),
        (subdomain, "a..b", false),
        (subdomain, "a_b", false),
        (qualified, "app", true),
        (qualified, "example.com/App_1", true),
        (qualified, "/app", false),
        (qualified, "a/b/c", false),
        (qualified, "example.com/", false),
        (qualified, "bad key", false),
        (label_value, "", true),
        (label_value, "v1.2_3", true),
        (label_value, "-v", false),
        (port_name, "http-1", true),
        (port_name, "80", false),
        (port_name, "a--b", false),
        (port_name, "sixteen-letters-x", false),
        (config_key, "app.properties", true),
        (config_key, "..x", false),
        (config_key, "a b", false),
        (env_name, "MY_VAR", true),
        (env_name, "A=B", false),
        (env_name, "", false),
    ];
    for (check, text, good) in cases {
        assert_eq!(check(text).is_empty(), *good, "{text:?}: {:?}", check(text));
    }
}

#[test]
fn messages_are_upstreams() {
    assert_eq!(
        label("Foo_Bar")[0],
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end \
         with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
    );
    assert_eq!(
        label_value(&"a".repeat(64)),
        ["must be no more than 63 characters"]
    );
}
