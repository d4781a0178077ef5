//! Texts that tenants and authorization servers may send to do harm. None of them is a valid response, key, duration or
//! date; some are valid templates.

use base64::Engine;

/// The longest text of the corpus: longer than any parser reads.
const LONG: usize = 100_000;

/// The whole corpus.
pub fn corpus() -> Vec<Vec<u8>> {
    let texts = nested().into_iter().chain(templates()).chain(private_keys()).chain(answers());
    texts.map(String::into_bytes).chain(long()).chain(odd_bytes()).collect()
}

/// Templates that once stopped the process, or made it answer questions about a token, and similar ones.
pub fn templates() -> Vec<String> {
    let of = |parts: [&str; 3], times: usize| format!("{}{}{}", parts[0], parts[1].repeat(times), parts[2]);
    let mut texts = vec!["{% if access_token[0:1] == 'e' %}{{ nope }}{% endif %}".to_owned()];
    for times in [1000, 4000, 16_000] {
        texts.extend([
            of(["{{ ", "-", "1 }}"], times),
            of(["{{ ", "a~", "a }}"], times),
            of(["{{ ", "not ", "a }}"], times),
            of(["{{ ", "(", "a }}"], times),
            of(["{{ ", "[", "a }}"], times),
            of(["{{ access_token", " | replace('e', 'eeeeeeeeee')", " }}"], times),
            of(["{{ access_token", " | tojson", " }}"], times),
            of(["", "{{ ", ""], times),
            of(["", "{% if a %}", ""], times),
            of(["", "{{ access_token | urlencode | urlencode | urlencode | urlencode }}", ""], times / 100),
        ]);
    }
    texts
}

/// Nested brackets, with and without their ends, deeper than any parser may follow.
fn nested() -> Vec<String> {
    let pairs = [("[", "]"), (r#"{"a":"#, "}"), ("(", ")"), ("<a>", "</a>"), ("((", "))"), (r#"{"keys":["#, "]}")];
    let deep = |(open, close): (&str, &str)| {
        [200, 5000].map(|times| [open.repeat(times), format!("{}0{}", open.repeat(times), close.repeat(times))])
    };
    pairs.into_iter().flat_map(deep).flatten().collect()
}

/// Keys that nest, give wrong lengths, or never end.
pub fn private_keys() -> Vec<String> {
    let nested = |levels: usize| {
        let header = |length: usize| [&[0x30, 0x83][..], &(length as u32).to_be_bytes()[1..]].concat();
        (0..levels).rev().map(|level| header(level * 5)).collect::<Vec<_>>().concat()
    };
    let ders = [
        nested(2000),
        nested(20_000),
        [0x30, 0x80].repeat(20_000),
        [0xA0, 0x80].repeat(5000),
        vec![0x30; 10_000],
        vec![0x30, 0x84, 0xFF, 0xFF, 0xFF, 0xFF],
        vec![0x30, 0x88, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
        vec![0x1F; 10_000],
        vec![],
    ];
    let text = |der: &Vec<u8>| base64::engine::general_purpose::STANDARD.encode(der);
    let labels = ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "CERTIFICATE", "x"];
    let of =
        |der: &Vec<u8>| labels.map(|label| format!("-----BEGIN {label}-----\n{}\n-----END {label}-----", text(der)));
    let begun = ["-----BEGIN PRIVATE KEY-----\n".repeat(500), "-----BEGIN ".repeat(1400), "-".repeat(16_000)];
    ders.iter().flat_map(of).chain(begun).collect()
}

/// Invalid responses of servers.
fn answers() -> Vec<String> {
    let token = |rest: &str| format!(r#"{{"access_token":"t","token_type":"Bearer","expires_in":{rest}}}"#);
    let long = "x".repeat(60_000);
    vec![
        "<!doctype html><html><body>200</body></html>".to_owned(),
        "\u{feff}{}".to_owned(),
        "null".to_owned(),
        token("-1"),
        token("1e400"),
        token("99999999999999999999999999"),
        token("9".repeat(60_000).as_str()),
        token(r#"3600,"expires_in":-1"#),
        format!(r#"{{"access_token":"{long}","token_type":"Bearer","expires_in":3600}}"#),
        format!(r#"{{"access_token":"{}\r\nx: y","token_type":"Bearer"}}"#, "t"),
        format!(r#"{{"error":"{long}","error_description":"{}"}}"#, "x"),
        format!(r#"{{"error":"{}"}}"#, r"\u0000\ud83d\ude00".repeat(3000)),
        format!(r#"{{"issuer":"https://ims.example.com","token_endpoint":"https://ims.example.com/{long}"}}"#),
        format!(r#"{{"issuer":"https://ims.example.com{}"}}"#, "/".repeat(60_000)),
        format!(r#"{{"keys":[{{"kty":"RSA","e":"AQAB","n":"{}"}}]}}"#, "!".repeat(40_000)),
        format!(r#"{{"keys":[{}1]}}"#, "1,".repeat(20_000)),
        format!("{}.{}.{}", "e30".repeat(1000), "e30".repeat(1000), "e30".repeat(1000)),
        ".".repeat(30_000),
    ]
}

/// One text, repeated.
fn long() -> Vec<Vec<u8>> {
    let parts = [
        "-", "+", "9", ".", "9h", "1s-", "e", "\\", "\"", "'", ",", "%", "/", "a=", "\0", "\n", " ", "é", "ß",
        "\u{feff}",
    ];
    parts
        .iter()
        .flat_map(|part| [50, 1000, LONG].map(|size| part.repeat(size.div_ceil(part.len())).into_bytes()))
        .collect()
}

/// Invalid UTF-8, and characters that are displayed as something else.
fn odd_bytes() -> Vec<Vec<u8>> {
    let bytes: [&[u8]; 9] = [
        b"\xff",
        b"\xc0\x80",
        b"\xe0\x80\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe2\x82",
        b"{\"access_token\":\"\xff\"}",
        "\u{202e}\u{200b}\u{0}\u{1f600}".as_bytes(),
        b"\xef\xbb\xbf",
    ];
    bytes.iter().flat_map(|bytes| [bytes.to_vec(), bytes.repeat(5000)]).collect()
}
