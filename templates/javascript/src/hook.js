// Quiesces MariaDB: a global read lock, from before the freeze until after the thaw, and where the binary log
// stood meanwhile. The lock belongs to the session, so that it ends with the hook, whatever happens to either.
import { Busy, HELD_BEFORE_FREEZE, Hook, Internal, NotApplicable, component, needsSql, run, sql } from "stillpoint-hook";

// The connection that the hook asks for, and uses unless its settings name another.
const CONNECTION = "main";

// What the hook asks for, whole and exact: the operator grants these texts, and the host sends no other.
const FILES = "SELECT @@GLOBAL.datadir, @@GLOBAL.log_bin_basename";
const BOUND_THE_WAIT = "SET SESSION lock_wait_timeout = 5";
const LOCK = "FLUSH TABLES WITH READ LOCK";
const UNFINISHED = "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_rows_modified > 0";
const FLUSH_LOGS = "FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS";
const POSITION = "SHOW MASTER STATUS";
const UNLOCK = "UNLOCK TABLES";
export const STATEMENTS = [FILES, BOUND_THE_WAIT, LOCK, UNFINISHED, FLUSH_LOGS, POSITION, UNLOCK];

// How often the lock is tried while transactions are open under it, and the pause between: InnoDB answers from a
// cache that is up to 100 ms old.
const TRIES = 10;
const PAUSE_MS = 150;
// Nothing is begun with less than this left of the phase: it is for giving back.
const RESERVE_MS = 2_000;
const GIVE_BACK_MS = 500;

/** The hook: one object lives through one run. */
export class Quiesce extends Hook {
  // Open from `prepare` on. While the lock is held it is this session's.
  #session;
  // Where the binary log stood when everything was quiet.
  #position;

  static describe() {
    return {
      name: "{{name}}",
      version: "0.1.0",
      summary: "Locks MariaDB, and saves where its binary log stands",
      freezeBudgetMs: 20_000,
      settingsSchema: {
        $schema: "https://json-schema.org/draft/2020-12/schema",
        type: "object",
        additionalProperties: false,
        properties: {
          connection: {
            description: "The connection to lock: a name that the grant has under [[sql]]",
            type: "string",
            minLength: 1,
            default: CONNECTION,
          },
        },
      },
      needs: [
        needsSql({
          connection: CONNECTION,
          engines: ["mariadb"],
          statements: STATEMENTS,
          reason: "to find its files, to stop writes while the snapshot is taken, and to let them go on",
        }),
      ],
    };
  }

  /** Everything that can be found out before anything is held. */
  prepare({ connection = CONNECTION }) {
    this.#session = sql.Connection.open(connection);
    const { engine, version } = this.#session.info;
    if (engine !== "mariadb") throw new NotApplicable(`${version} is not MariaDB`);
    const files = this.#session.query(FILES, [], { timeoutMs: run.remainingBut(GIVE_BACK_MS) }).first();
    if (files.isNull(1)) throw new NotApplicable("the server writes no binary log: set log_bin");
    position(this.#session); // a missing privilege is found before anything is locked
    return { paths: [files.text(0), directoryOf(files.text(1))], summary: `MariaDB ${version}` };
  }

  /** Other clients wait from here to `postThaw`. */
  preFreeze() {
    const session = this.#open();
    try {
      const lockedAtMs = lockWithNothingOpen(session);
      // What was committed is in the binary log; with this it is in InnoDB's files, too.
      session.execute(FLUSH_LOGS, [], { timeoutMs: run.remainingBut(RESERVE_MS) });
      this.#position = position(session);
      const { file, offset } = this.#position;
      const held = Math.round((lockedAtMs - run.remainingMs()) * 1e6);
      return {
        consistency: "application",
        metadata: { "binlog-file": file, "binlog-position": offset, [HELD_BEFORE_FREEZE]: held },
      };
    } catch (error) {
      this.#giveBack();
      throw error;
    }
  }

  /** The session that locked still answers, and nothing was written meanwhile. */
  confirm() {
    const [then, now] = [this.#position, position(this.#open())];
    if (then?.file !== now.file || then.offset !== now.offset) {
      throw new Internal(`the lock did not hold: the binary log was at ${written(then)} and is at ${written(now)}`);
    }
  }

  /** Called whenever `preFreeze` was, also when that failed: nothing left to do is a success. */
  postThaw(_outcome) {
    const session = this.#session;
    this.#session = undefined;
    session?.execute(UNLOCK, [], { timeoutMs: GIVE_BACK_MS });
    session?.close();
  }

  #open() {
    if (this.#session === undefined) throw new Internal("no session is open");
    return this.#session;
  }

  // Closing the session releases too, but only once the server has noticed.
  #giveBack() {
    try {
      this.#session.execute(UNLOCK, [], { timeoutMs: GIVE_BACK_MS });
    } catch {
      // The error that led here is the one to tell.
    }
    this.#session.close();
    this.#session = undefined;
  }
}

export const lifecycle = component(Quiesce);

// Takes the lock with no transaction open under it: a copy would roll that back. Gives what was left of the phase
// when the lock was granted.
function lockWithNothingOpen(session) {
  session.execute(BOUND_THE_WAIT, [], { timeoutMs: run.remainingBut(RESERVE_MS) });
  for (let tries = 0; tries < TRIES; tries += 1) {
    session.execute(LOCK, [], { timeoutMs: run.remainingBut(RESERVE_MS) });
    const grantedAtMs = run.remainingMs();
    const open = session.query(UNFINISHED, [], { timeoutMs: run.remainingBut(RESERVE_MS) });
    if (open.first().integer(0) === 0) return grantedAtMs;
    session.execute(UNLOCK, [], { timeoutMs: GIVE_BACK_MS });
    if (run.cancelled() || run.remainingBut(RESERVE_MS) <= PAUSE_MS) break;
    run.sleep(PAUSE_MS);
  }
  throw new Busy("transactions were open whenever the lock was granted: try later");
}

/** A place in the binary log. Every commit moves it. */
function position(session) {
  const row = session.query(POSITION, [], { timeoutMs: run.remainingBut(GIVE_BACK_MS) }).first();
  return { file: row.text("File"), offset: row.integer("Position") };
}

const written = (place) => (place === undefined ? "no place" : `${place.file}:${place.offset}`);

const directoryOf = (path) => path.slice(0, path.lastIndexOf("/")) || "/";
