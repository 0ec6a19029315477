//! The proxy that the environment names, as curl and others read it.

use std::env;

use kiln_wire::client::Target;

/// The proxy on the way to a server, if there is one.
pub fn of_environment(target: &Target) -> Option<String> {
    let Target::Url(url) = target else {
        return None;
    };
    let variable = |name: &str| {
        let lower = env::var(name.to_lowercase()).ok();
        lower
            .or_else(|| env::var(name).ok())
            .filter(|value| !value.is_empty())
    };
    find(url, &variable)
}

fn find(url: &str, variable: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let host = host(rest);
    let local = host == "localhost"
        || host
            .parse()
            .is_ok_and(|address: std::net::IpAddr| address.is_loopback());
    if local || variable("NO_PROXY").is_some_and(|list| excepted(&list, host)) {
        return None;
    }
    let own = match scheme {
        "https" => "HTTPS_PROXY",
        _ => "HTTP_PROXY",
    };
    let proxy = variable(own).or_else(|| variable("ALL_PROXY"))?;
    Some(match proxy.contains("://") {
        true => proxy,
        false => format!("http://{proxy}"),
    })
}

fn host(rest: &str) -> &str {
    let authority = rest.split('/').next().unwrap_or(rest);
    match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        None => authority.split(':').next().unwrap_or(authority),
    }
}

fn excepted(list: &str, host: &str) -> bool {
    list.split([',', ' ']).map(str::trim).any(|word| {
        let domain = word.trim_start_matches('.');
        let below = || {
            host.strip_suffix(domain)
                .is_some_and(|rest| rest.ends_with('.'))
        };
        word == "*" || (!domain.is_empty() && (host == domain || below()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)], url: &str) -> Option<String> {
        find(url, &|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn a_proxy_is_for_what_the_environment_says_and_never_for_this_host() {
        let variables = [
            ("HTTPS_PROXY", "proxy:3128"),
            ("NO_PROXY", "inside.example, .corp"),
        ];
        let of = |url| with(&variables, url);
        assert_eq!(
            of("https://builds.example").as_deref(),
            Some("http://proxy:3128")
        );
        assert_eq!(of("http://builds.example"), None);
        for near in [
            "https://localhost:8080",
            "https://127.0.0.1",
            "https://[::1]:1",
            "https://inside.example/x",
            "https://a.corp",
        ] {
            assert_eq!(of(near), None, "{near}");
        }
        assert!(of("https://notinside.example").is_some());
        assert_eq!(
            with(&[("ALL_PROXY", "http://p:1")], "http://x").as_deref(),
            Some("http://p:1")
        );
    }
}
