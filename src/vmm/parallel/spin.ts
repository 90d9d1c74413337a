// Waiting for another thread: looking again and again while it is expected to act within microseconds, and asleep after that.

/** Tells the processor that this thread spins (ECMAScript `Atomics.pause`), where the platform has that. */
export const spinPause: () => void = (Atomics as unknown as { pause?: () => void }).pause?.bind(Atomics) ?? (() => {});

/** Looks before sleeping. */
const SPINS = 200;
/** Who sleeps looks again after so long, since not everything that it waits for is announced. */
const SLEEP_MS = 0.05;

/** Waits until `done`; `word` is notified when that may have become true. `meanwhile` is done again and again. */
export function waitUntil(words: Int32Array, word: number, done: () => boolean, meanwhile: () => void): void {
  for (let n = 0; n < SPINS; n++) {
    if (done()) return;
    meanwhile();
    spinPause();
  }
  for (;;) {
    const seen = Atomics.load(words, word);
    if (done()) return;
    meanwhile();
    Atomics.wait(words, word, seen, SLEEP_MS);
  }
}
