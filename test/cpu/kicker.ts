// The other thread of kick.test.ts: kicks while the control word is odd.

import { workerData } from "node:worker_threads";
import { kick, limitWord } from "../../src/cpu/kick.ts";

const { memory, control, rounds } = workerData as { memory: WebAssembly.Memory; control: Int32Array; rounds: number };
const limit = limitWord(memory);
for (let seen = 0; seen < 2 * rounds; ) {
  seen = Atomics.load(control, 0);
  if ((seen & 1) !== 0) kick(limit);
}
