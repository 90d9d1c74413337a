// Making a vCPU come back from guest code, from any thread. The vCPU compares its budget with a word that only others raise, so a kick is
// never lost to the vCPU's own counting. Whoever wants something of a vCPU posts it first and kicks then; the vCPU arms the word first and looks
// at what was posted then (`EngineHost.requested`). Both are sequentially consistent, so one of the two sees the other.

import { LIMIT_NOW, VAR } from "./layout.ts";

/** The word of a vCPU's memory that the others raise. */
export function limitWord(memory: WebAssembly.Memory): Int32Array {
  return new Int32Array(memory.buffer, VAR.LIMIT, 1);
}

/** Makes the vCPU whose word this is leave guest code at its next poll. One that is not running runs as if nothing had been. */
export function kick(limit: Int32Array): void {
  Atomics.store(limit, 0, LIMIT_NOW);
}

/** From now on kicks count. */
export function armKicks(limit: Int32Array): void {
  Atomics.store(limit, 0, 0);
}
