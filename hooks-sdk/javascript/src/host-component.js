// The host's functions, inside a component. The names are those of the contract (wit/hook.wit).
import sql from "stillpoint:hook/sql@0.1.1";
import process from "stillpoint:hook/process@0.1.1";
import kv from "stillpoint:hook/kv@0.1.1";
import run from "stillpoint:hook/run@0.1.1";
import log from "stillpoint:hook/log@0.1.1";

export const host = () => ({ sql, process, kv, run, log });
