// The seam to the platform, as the thread that runs a machine sees it. `node/` and later `browser/` implement it.

export interface Host {
  /** Monotonic time in nanoseconds, from any origin. Asked for often, so it must be cheap. */
  now(): number;
  /** Milliseconds since 1970. */
  wallClock(): number;
  /** Fills the array, which is no shared memory, with bytes fit for cryptography. */
  randomFill(bytes: Uint8Array): void;
  /** The engine module (src/cpu/standard-module.ts), which a host may keep between runs. */
  readonly engineModule: WebAssembly.Module;
}

/** Node makes the global anew each time it is asked for, which costs half as much as reading the time. */
const clock = performance;

/** What both platforms have; `performance.now` is finer than a microsecond in Node. */
export const webHost: Omit<Host, "engineModule"> = {
  now: () => clock.now() * 1e6,
  wallClock: () => Date.now(),
  randomFill: (bytes) => {
    // The specification allows 65,536 bytes a call.
    for (let at = 0; at < bytes.length; at += 65536)
      crypto.getRandomValues(bytes.subarray(at, at + 65536) as Uint8Array<ArrayBuffer>);
  },
};
