use super::draw;
use super::line::read;
use super::panels::picture;

const OURS: &str =
    r#""proxy":"seaway-proxy","mode":"iptables","variant":"nft","services":100,"endpoints":2"#;
const PEER: &str = r#""proxy":"kube-proxy","mode":"nft<&>","services":100,"endpoints":2"#;

fn programming(labels: &str, metric: &str, value: f64) -> String {
    format!(
        "{{\"scenario\":\"programming\",{labels},\"metric\":\"{metric}\",\"value\":{value:?}}}\n"
    )
}

fn datapath(labels: &str, metric: &str, value: f64) -> String {
    programming(labels, metric, value).replace("programming", "datapath")
}

fn error(text: &str) -> String {
    let drawn = read("a.json", text).and_then(|lines| draw(&lines));
    format!("{:#}", drawn.unwrap_err())
}

/// Title, note, then name and value of each bar.
fn panels(text: &str) -> Vec<String> {
    let lines = read("a.json", text).unwrap();
    let panels = picture(&lines).unwrap().panels.into_iter();
    let panel = panels.map(|panel| {
        let bars = panel.bars.iter();
        let bars = bars.map(|bar| format!("{} {} {}", bar.name, bar.value, panel.unit.symbol()));
        let bars: Vec<String> = bars.collect();
        format!("{} | {} | {}", panel.title, panel.note, bars.join(" | "))
    });
    panel.collect()
}

#[test]
fn a_small_picture() {
    let text = programming(PEER, "cold_start_s", 4.0) + &programming(OURS, "cold_start_s", 1.0);
    let lines = read("a.json", &text).unwrap();
    assert_eq!(draw(&lines).unwrap(), include_str!("small.svg"));
}

#[test]
fn a_contender_is_named_as_people_say_it() {
    for (labels, name) in [
        (
            r#""mode":"iptables","variant":"legacy""#,
            "seaway-proxy iptables (legacy)",
        ),
        (
            r#""mode":"iptables","variant":"legacy","nat":"same""#,
            "seaway-proxy iptables (legacy, nat same)",
        ),
        (r#""mode":"ebpf""#, "seaway-proxy ebpf"),
    ] {
        let labels = format!(r#""proxy":"seaway-proxy",{labels},"services":100,"endpoints":2"#);
        let lines = read("a.json", &programming(&labels, "cold_start_s", 1.0)).unwrap();
        assert_eq!(lines[0].contender().as_deref(), Some(name));
    }
}

#[test]
fn of_the_memory_the_end_is_drawn() {
    let [start, end] = ["start", "end"].map(|when| format!(r#"{OURS},"when":"{when}""#));
    let text = programming(&start, "rss_mb", 70.0) + &programming(&end, "rss_mb", 71.0);
    let expected =
        "Resident memory at the end | less is better | seaway-proxy iptables (nft) 71 MB";
    assert_eq!(panels(&text), [expected]);
}

#[test]
fn first_packets_are_drawn_as_a_multiple_of_direct_ones() {
    let [service, direct] = ["service", "direct"].map(|path| format!(r#"{OURS},"path":"{path}""#));
    let text = datapath(&service, "first_packet_us_p50", 60.0)
        + &datapath(&direct, "first_packet_us_p50", 50.0)
        + &datapath(OURS, "crr_ratio_to_direct", 0.9);
    assert_eq!(
        panels(&text),
        [
            "Time to connect, as a multiple of direct | less is better | seaway-proxy iptables (nft) 1.2 ",
            "Connections a second, as a multiple of direct | more is better | seaway-proxy iptables (nft) 0.9 ",
        ]
    );
}

#[test]
fn each_number_of_services_has_panels_of_its_own() {
    let many = OURS.replace("100", "10000");
    let text = programming(&many, "cold_start_s", 2.0) + &programming(OURS, "cold_start_s", 1.0);
    assert_eq!(
        panels(&text),
        [
            "Start, until every Service is served | 100 Services, 2 endpoints each; less is better | seaway-proxy iptables (nft) 1 s",
            "Start, until every Service is served | 10000 Services, 2 endpoints each; less is better | seaway-proxy iptables (nft) 2 s",
        ]
    );
}

#[test]
fn ways_and_plugins_are_drawn_without_a_number_of_services() {
    let drawn = |lines: &[&str]| {
        let text: Vec<String> = lines
            .iter()
            .map(|line| format!("{{{line},\"value\":2.0}}"))
            .collect();
        panels(&text.join("\n"))
    };
    assert_eq!(
        drawn(&[
            r#""scenario":"overlay","way":"flannel","congestion":"cubic","metric":"throughput_mb_per_s""#,
            r#""scenario":"overlay","way":"ebpf","congestion":"cubic","metric":"throughput_mb_per_s""#,
            r#""scenario":"overlay","way":"ebpf","congestion":"bbr","metric":"throughput_mb_per_s""#,
            r#""scenario":"overlay","way":"ebpf","metric":"round_trip_us""#,
            r#""scenario":"overlay","metric":"ebpf_ping_ratio""#,
        ]),
        [
            "One TCP stream, megabytes | more is better | Seaway, eBPF 2 /s | flannel and kube-proxy 2 /s",
            "There and back | less is better | Seaway, eBPF 2 µs",
        ]
    );
    assert_eq!(
        drawn(&[
            r#""scenario":"cni","chain":"reference full","metric":"add_ms_p50""#,
            r#""scenario":"cni","chain":"reference","metric":"add_ms_p50""#,
            r#""scenario":"cni","metric":"add_ms_p50""#,
        ]),
        [
            "ADD, median | less is better | seaway-cni 2 ms | reference plugins 2 ms",
            "ADD with a host port and a limit, median | less is better | reference plugins 2 ms",
        ]
    );
}

#[test]
fn nothing_but_zeros_is_drawn_without_bars() {
    let text = programming(OURS, "idle_cpu_ms_per_s", 0.0);
    let drawn = draw(&read("a.json", &text).unwrap()).unwrap();
    assert!(
        drawn.contains(r#"width="0.0""#) && !drawn.contains("NaN"),
        "{drawn}"
    );
}

#[test]
fn what_cannot_be_drawn_says_why() {
    let start = programming(OURS, "cold_start_s", 1.0);
    for (text, reason) in [
        (String::new(), "a.json is empty"),
        (format!("{start}warning: busy\n"), "a.json:2: no figure as"),
        (
            start.replace("programming", "mesh"),
            "a.json:1: no figure as `programming`, `datapath`, `overlay` and `cni` print it with `--json`: unknown variant `mesh`",
        ),
        (
            start.replace("cold_start_s", "api_write_ms_p50"),
            "none of these figures is drawn",
        ),
        (
            start.clone() + &datapath(OURS, "rr_ratio_to_direct", 1.0),
            "figures of several scenarios",
        ),
        (
            start.clone() + &start,
            "cold_start_s of seaway-proxy iptables (nft) with 100 Services, 2 endpoints each is there twice",
        ),
    ] {
        let error = error(&text);
        assert!(error.contains(reason), "{error}\nlacks: {reason}");
    }
}
