import { host } from "#host";

const NANOSECONDS = 1_000_000;

/** Milliseconds as the contract's duration; nothing stays nothing. */
export const nanoseconds = (ms) => (ms === undefined ? null : Math.max(0, Math.round(ms * NANOSECONDS)));

/** What this run is: `{ runId, hookName, dryRun }`. */
export const info = () => host().run.getInfo();
export const currentPhase = () => host().run.currentPhase();
export const remainingMs = () => host().run.remaining() / NANOSECONDS;
export const remainingBut = (reserveMs) => Math.max(0, remainingMs() - reserveMs);
export const cancelled = () => host().run.cancelled();
export const sleep = (ms) => host().run.sleep(nanoseconds(ms));
