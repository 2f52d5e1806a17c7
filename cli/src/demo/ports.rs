//! Where the demo listens.

/// Ports, by flags and environment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) http: u16,
    pub(super) grpc: Option<u16>,
}

const USAGE: &str = "usage: flotilla demo [--port N] [--grpc-port N]";

/// HTTP by `--port N`, else by the environment, else on 8080; gRPC only where it is asked for.
pub(super) fn ports(arguments: &[String], environment: Option<String>) -> Result<Ports, String> {
    let (mut http, mut grpc) = (environment, None);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let (flag, value) = match word.split_once('=') {
            Some((flag, value)) => (flag, value.to_owned()),
            None => (word.as_str(), words.next().ok_or(USAGE)?.clone()),
        };
        match flag {
            "--port" => http = Some(value),
            "--grpc-port" => grpc = Some(value),
            _ => return Err(USAGE.to_owned()),
        }
    }
    let number = |text: String| text.parse().map_err(|_| format!("{text:?} is not a port"));
    Ok(Ports {
        http: http.map_or(Ok(8080), number)?,
        grpc: grpc.map(number).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(arguments: &str, environment: Option<&str>, expected: Result<(u16, Option<u16>), &str>) {
        let words: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
        let found = ports(&words, environment.map(str::to_owned)).map(|ports| (ports.http, ports.grpc));
        assert_eq!(found, expected.map_err(str::to_owned));
    }

    #[test]
    fn the_port_comes_from_the_flag_then_the_environment() {
        check("", None, Ok((8080, None)));
        check("", Some("81"), Ok((81, None)));
        check("--port 82", Some("81"), Ok((82, None)));
        check("--port=83 --grpc-port 90", None, Ok((83, Some(90))));
        check("--port x", None, Err("\"x\" is not a port"));
        check("--prot 1", None, Err(USAGE));
        check("--port", None, Err(USAGE));
    }
}
