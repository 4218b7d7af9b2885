//! Which databases are in a copy: known by the files that each of them cannot do without.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};

use super::job::Engine;

/// How deep below a mount point data directories are looked for.
const DEPTH: usize = 5;

/// Directories that are looked at below one mount point.
const MOST_DIRECTORIES: usize = 20_000;

/// Data directories below `top`, nearest first. Nothing is looked for inside one.
pub(super) fn databases(top: &Path, other_mounts: &[PathBuf]) -> Vec<(Engine, PathBuf)> {
    let mut found = Vec::new();
    let mut waiting = VecDeque::from([(top.to_owned(), 0)]);
    let mut seen = 0;
    while let Some((directory, depth)) = waiting.pop_front() {
        seen += 1;
        if seen > MOST_DIRECTORIES {
            break;
        }
        if let Some(engine) = engine_of(&directory) {
            found.push((engine, directory));
            continue;
        }
        if depth == DEPTH {
            continue;
        }
        let entries = fs::read_dir(&directory).into_iter().flatten().filter_map(Result::ok);
        let folders = entries.filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir()));
        let mut below: Vec<PathBuf> = folders.map(|it| it.path()).collect();
        below.retain(|path| path == top || !other_mounts.contains(path));
        below.sort();
        waiting.extend(below.into_iter().map(|path| (path, depth + 1)));
    }
    found
}

fn engine_of(directory: &Path) -> Option<Engine> {
    let has = |name: &str| directory.join(name).exists();
    if has("ibdata1") && has("mysql") {
        return Some(Engine::Mariadb);
    }
    if has("PG_VERSION") && has("global/pg_control") {
        return Some(Engine::Postgresql);
    }
    let is_redis = has("appendonlydir") || has("appendonly.aof") || has("dump.rdb");
    is_redis.then_some(Engine::Redis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(top: &Path, files: &[&str]) {
        for file in files {
            let path = top.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
    }

    #[test]
    fn each_engine_is_known_by_its_files() {
        let top = tempfile::tempdir().unwrap();
        make(
            top.path(),
            &[
                "mysql/ibdata1",
                "mysql/mysql/db.frm",
                "postgresql/15/main/PG_VERSION",
                "postgresql/15/main/global/pg_control",
                "postgresql/15/main/base/1/PG_VERSION",
                "redis/dump.rdb",
                "other/ibdata1",
            ],
        );
        let found = databases(top.path(), &[]);
        assert_eq!(
            found,
            [
                (Engine::Mariadb, top.path().join("mysql")),
                (Engine::Redis, top.path().join("redis")),
                (Engine::Postgresql, top.path().join("postgresql/15/main")),
            ]
        );
    }

    #[test]
    fn what_is_mounted_below_is_looked_at_by_itself() {
        let top = tempfile::tempdir().unwrap();
        make(top.path(), &["b/dump.rdb"]);
        assert_eq!(databases(top.path(), &[top.path().join("b")]), []);
    }
}
