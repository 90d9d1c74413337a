// A guest that runs wild never takes the monitor down: random bytes as code, in every mode, with whatever they do to the registers that rule
// paging, segments and descriptor tables.

import assert from "node:assert/strict";
import { test } from "node:test";
import { EXIT } from "../../src/isa/exit.ts";
import { RIP } from "../../src/isa/state.ts";
import { AT, Rig } from "./rig.ts";

const SEEDS = Number(process.env.WILD_SEEDS ?? 1000);
const REASONS: readonly number[] = Object.values(EXIT);

/** A small generator with 32 bits of state (xorshift), so that a seed that fails can be run again. */
function random(seed: number): () => number {
  let state = (seed + 1) * 0x9e3779b9;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

test(`${SEEDS} seeds of random bytes as a kernel`, () => {
  const rig = new Rig();
  const pristine = rig.bytes.slice(0, 0x10000);
  let instructions = 0;
  for (let seed = 0; seed < SEEDS; seed++) {
    const next = random(seed);
    rig.write(0, pristine);
    if (seed % 3 === 0) rig.longMode();
    else if (seed % 3 === 1) rig.protectedMode();
    else rig.realMode();
    const at = seed % 3 === 2 ? 0x10000 : AT.CODE;
    const code = Uint8Array.from({ length: 4096 }, next);
    rig.write(at, code);
    for (let n = 0; n < 16; n++) if (n !== 4) rig.engine.setGpr(n, BigInt(next()) << BigInt(next() % 33));
    rig.engine.set(RIP, seed % 3 === 2 ? 0 : at);
    const before = rig.engine.retired();
    for (let slice = 0; slice < 4; slice++) {
      let reason: number;
      try {
        reason = rig.engine.run(2000);
      } catch (error) {
        throw new Error(`seed ${seed} brought the engine down`, { cause: error });
      }
      assert.ok(REASONS.includes(reason), `seed ${seed}: exit ${reason}`);
      if (reason === EXIT.SHUTDOWN) break;
    }
    instructions += rig.engine.retired() - before;
  }
  assert.ok(instructions > SEEDS, "next to nothing was executed");
});
