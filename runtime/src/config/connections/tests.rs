use super::*;

fn loaded(text: &str) -> Result<Connections, ConfigError> {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::under(root.path());
    std::fs::create_dir_all(paths.config()).unwrap();
    std::fs::write(paths.config().join("connections.toml"), text).unwrap();
    Connections::load(&paths)
}

fn refusal(text: &str) -> String {
    loaded(text).unwrap_err().to_string()
}

#[test]
fn a_socket_connection_needs_a_socket_and_a_user() {
    let all =
        loaded("[connections.main]\nengine = \"mysql\"\nsocket = \"/run/m.sock\"\nuser = \"s\"\n");
    let all = all.unwrap();
    let main = all.get("main").unwrap();
    assert_eq!(main.endpoint, Endpoint::Socket("/run/m.sock".into()));
    assert_eq!(main.described_at.line, 1);
    assert!(main.secret().unwrap().is_none());
}

#[test]
fn tcp_to_another_machine_without_tls_is_refused() {
    let error =
        refusal("[connections.a]\nengine = \"mysql\"\nhost = \"db.example\"\nuser = \"s\"\n");
    assert!(error.contains("connections.toml:3:8: `db.example` is not this machine"), "{error}");
}

#[test]
fn tcp_in_the_clear_must_be_said() {
    let text = "[connections.a]\nengine = \"mysql\"\nhost = \"db.example\"\nuser = \"s\"\n[connections.a.tls]\nmode = \"off\"\n";
    let endpoint = loaded(text).unwrap().get("a").unwrap().endpoint.clone();
    assert_eq!(endpoint, Endpoint::Tcp { host: "db.example".into(), port: 3306, tls: Tls::Off });
}

#[test]
fn an_unknown_engine_is_named_with_what_there_is() {
    let error = refusal("[connections.a]\nengine = \"mongodb\"\nsocket = \"/s\"\nuser = \"s\"\n");
    assert!(error.contains(":2:10: unknown variant `mongodb`"), "{error}");
    assert!(error.contains("mysql"), "{error}");
}

#[test]
fn a_password_file_that_others_can_read_is_refused_and_the_password_is_in_no_text() {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::under(root.path());
    std::fs::create_dir_all(paths.config()).unwrap();
    let file = root.path().join("password");
    std::fs::write(&file, "geheim\n").unwrap();
    let text = format!(
        "[connections.a]\nengine = \"mysql\"\nsocket = \"/s\"\nuser = \"s\"\npassword-file = {file:?}\n"
    );
    std::fs::write(paths.config().join("connections.toml"), text).unwrap();
    let connections = Connections::load(&paths).unwrap();
    let connection = connections.get("a").unwrap();

    let error = connection.secret().unwrap_err();
    assert!(error.to_string().contains("mode is 0644"), "{error}");
    assert_eq!(error.hint().unwrap(), format!("chmod 0600 {}", file.display()));

    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let secret = connection.secret().unwrap().unwrap();
    assert_eq!(secret.expose(), "geheim");
    assert_eq!(format!("{secret:?}"), "***");
    assert!(!format!("{connections:?}").contains("geheim"));
}

fn endpoint(text: &str) -> Endpoint {
    loaded(text).unwrap().get("a").unwrap().endpoint.clone()
}

#[test]
fn each_engine_has_its_own_port() {
    for (engine, expected) in [("mysql", 3306), ("postgresql", 5432), ("redis", 6379)] {
        let text =
            format!("[connections.a]\nengine = \"{engine}\"\nhost = \"127.0.0.1\"\nuser = \"s\"\n");
        let host = "127.0.0.1".into();
        assert_eq!(endpoint(&text), Endpoint::Tcp { host, port: expected, tls: Tls::Off });
        let text = format!("{text}port = 7\n");
        assert!(matches!(endpoint(&text), Endpoint::Tcp { port: 7, .. }));
    }
}

#[test]
fn a_postgresql_socket_is_a_directory_with_a_port_or_the_socket_itself() {
    for (keys, expected) in [
        ("socket = \"/run/postgresql\"", "/run/postgresql/.s.PGSQL.5432"),
        ("socket = \"/run/postgresql/\"\nport = 5433", "/run/postgresql/.s.PGSQL.5433"),
        ("socket = \"/tmp/.s.PGSQL.5440\"", "/tmp/.s.PGSQL.5440"),
    ] {
        let text = format!("[connections.a]\nengine = \"postgresql\"\nuser = \"s\"\n{keys}\n");
        assert_eq!(endpoint(&text), Endpoint::Socket(expected.into()));
    }
    let both = "[connections.a]\nengine = \"postgresql\"\nuser = \"s\"\nsocket = \"/tmp/.s.PGSQL.5440\"\nport = 5440\n";
    let error = refusal(both);
    assert!(error.contains("connections.toml:5:8: `port` has no meaning with `socket`"), "{error}");
}

#[test]
fn a_key_of_another_engine_is_refused_where_it_stands() {
    for engine in ["mysql", "redis"] {
        let error = refusal(&format!(
            "[connections.a]\nengine = \"{engine}\"\nsocket = \"/s\"\nuser = \"s\"\ndatabase = \"d\"\n"
        ));
        let expected = format!(":5:12: `database` has no meaning for a {engine} server");
        assert!(error.contains(&expected), "{error}");
        let error = refusal(&format!(
            "[connections.a]\nengine = \"{engine}\"\nsocket = \"/s\"\nuser = \"s\"\nport = 7\n"
        ));
        assert!(error.contains(":5:8: `port` has no meaning"), "{error}");
    }
    let error = refusal(
        "[connections.a]\nengine = \"postgresql\"\nsocket = \"/s\"\nuser = \"s\"\ndatabase = \"\"\n",
    );
    assert!(error.contains(":5:12: `database` is empty"), "{error}");
}

#[test]
fn only_redis_does_without_a_user() {
    let without = |engine: &str| {
        loaded(&format!("[connections.a]\nengine = \"{engine}\"\nsocket = \"/s\"\n"))
    };
    assert!(without("redis").unwrap().get("a").unwrap().user.is_none());
    for engine in ["mysql", "postgresql"] {
        let error = without(engine).unwrap_err();
        assert!(error.to_string().contains(":1:14: connection `a` needs `user`"), "{error}");
        assert_eq!(error.hint().unwrap(), "add user = \"…\" to [connections.a]");
    }
}
