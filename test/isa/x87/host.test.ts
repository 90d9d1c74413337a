// Every x87 instruction against the host CPU on random and edge operands, in all rounding and precision modes, with all masks. The number of
// cases an encoding is SKEP_X87_CASES (default 100, in a second or two).

import assert from "node:assert/strict";
import { test } from "node:test";
import { X87 } from "../../../src/isa/x87/x87.ts";
import { compare, compileOracle, type Difference, encodings } from "./host.ts";
import { buildScratch } from "./scratch.ts";

/** Not on random states: their images do not fit the record, or they raise what is pending. test/isa/x87/engine.test.ts has them. */
const ELSEWHERE = new Set(["FRSTOR", "FNSAVE", "FWAIT"]);

function describe({ tested, input, host, own }: Difference): string {
  const stack = input.stack.map(({ sig, se }) => `${se.toString(16)}:${sig.toString(16)}`).join(" ");
  return [
    `${tested.instruction.name} ${tested.row} i=${tested.index}`,
    `fcw ${input.fcw.toString(16)} fsw ${input.fsw.toString(16)} ftw ${input.ftw.toString(2)} flags ${input.flags.toString(16)}`,
    `stack ${stack} memory ${input.memory.map((half) => half.toString(16)).join(" ")}`,
    `host ${JSON.stringify(host)}`,
    `own  ${JSON.stringify(own)}`,
  ].join("\n  ");
}

test("x87 instructions do what the host's do", (t) => {
  const oracle = compileOracle();
  if (oracle === undefined) {
    t.skip("needs gcc on an x86-64 Linux host");
    return;
  }
  try {
    const tested = X87.filter(({ name }) => !ELSEWHERE.has(name)).flatMap((instruction) =>
      instruction.rows.flatMap((row) => encodings(instruction, row)),
    );
    const scratch = buildScratch(X87);
    const cases = Number(process.env.SKEP_X87_CASES ?? 100);
    const seed = Number(process.env.SKEP_X87_SEED ?? 1);
    const { count, differences } = compare(scratch, oracle.path, tested, cases, seed);
    assert.ok(count >= cases * 400);
    assert.equal(differences.length, 0, differences.slice(0, 5).map(describe).join("\n"));
  } finally {
    oracle.remove();
  }
});
