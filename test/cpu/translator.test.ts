// The translator against the interpreter: whatever is run must leave the same registers, flags, memory and count of instructions, wherever
// the budget ends it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { FCW, GPR_COUNT, MXCSR, RIP, VECTOR_BASE, VECTOR_STRIDE, X87_BASE } from "../../src/isa/state.ts";
import { BASE, INDEX, randomProgram, Source } from "./programs.ts";
import { AT, Rig } from "./rig.ts";

const PROGRAMS = Number(process.env.SKEP_TEST_PROGRAMS ?? 400);
const DATA_BYTES = 0x1000;
/** Instructions after which a program that loops is left. */
const LIMIT = 1500;

interface Pair {
  readonly interpreter: Rig;
  readonly translator: Rig;
}

function pair(): Pair {
  return {
    interpreter: new Rig(undefined, {}, undefined).longMode(),
    translator: new Rig(undefined, {}, 1).longMode(),
  };
}

function both({ interpreter, translator }: Pair, act: (rig: Rig) => void): void {
  act(interpreter);
  act(translator);
}

/** Everything that a program can change. */
function image(rig: Rig): string {
  const { engine } = rig;
  const lines = Array.from({ length: GPR_COUNT }, (_, n) => `r${n} ${engine.gpr(n).toString(16)}`);
  lines.push(`rip ${engine.get(RIP).toString(16)}`, `flags ${engine.rflags().toString(16)}`);
  lines.push(`retired ${engine.retired()}`, `mxcsr ${engine.get(MXCSR)}`, `fcw ${engine.get(FCW)}`);
  const state = Buffer.from(engine.memory.buffer);
  for (let n = 0; n < 16; n++) {
    const at = VECTOR_BASE + n * VECTOR_STRIDE;
    lines.push(`xmm${n} ${state.toString("hex", at, at + 16)}`);
  }
  lines.push(`x87 ${state.toString("hex", X87_BASE, X87_BASE + 128)}`);
  return lines.join("\n");
}

function memoryOf(rig: Rig): string {
  const bytes = Buffer.from(rig.ram.buffer);
  const hex = (from: number, length: number): string => bytes.subarray(from, from + length).toString("hex");
  return [
    hex(AT.DATA, DATA_BYTES),
    hex(AT.STACK_TOP - 0x1000, 0x1000),
    hex(AT.EXCEPTION_STACK_TOP - 64, 64),
    hex(AT.CODE, 0x9000),
  ].join("\n");
}

function fill(rig: Rig, seed: number): void {
  const s = new Source(seed);
  const { engine } = rig;
  for (let n = 0; n < GPR_COUNT; n++) engine.setGpr(n, s.quad());
  engine.setGpr(BASE, BigInt(AT.DATA + 0x800));
  engine.setGpr(INDEX, BigInt(s.below(16)));
  engine.setGpr(4, BigInt(AT.STACK_TOP - 0x800));
  // Pointers for string instructions, and a counter for loops.
  engine.setGpr(6, BigInt(AT.DATA + 0x100));
  engine.setGpr(7, BigInt(AT.DATA + 0x300));
  engine.setGpr(15, BigInt(1 + s.below(30)));
  engine.setRflags(2 | (s.word() & 0x8d5));
  const state = new DataView(engine.memory.buffer);
  for (let n = 0; n < 16; n++) {
    const at = VECTOR_BASE + n * VECTOR_STRIDE;
    const float = s.chance(50);
    state.setBigUint64(at, s.quad(), true);
    state.setBigUint64(at + 8, s.quad(), true);
    if (float) state.setFloat64(at, s.below(1000) / 8, true);
  }
  const data = Array.from({ length: DATA_BYTES }, () => s.word() & 0xff);
  rig.write(AT.DATA, data);
  engine.set(RIP, AT.CODE);
}

/** Runs what is at AT.CODE in slices of the same size on both, comparing after each. */
function compare(rigs: Pair, slices: Source, what: string): void {
  const { interpreter, translator } = rigs;
  const start = interpreter.engine.retired();
  for (;;) {
    const budget = 1 + slices.below(slices.chance(50) ? 10 : 200);
    const reasons = [interpreter.engine.run(budget), translator.engine.run(budget)];
    assert.equal(reasons[1], reasons[0], `${what}: exit`);
    assert.equal(image(translator), image(interpreter), what);
    if (reasons[0] !== 0 || interpreter.engine.retired() - start > LIMIT) break;
  }
  assert.equal(memoryOf(translator), memoryOf(interpreter), `${what}: memory`);
}

test("random programs run the same translated and interpreted", () => {
  const rigs = pair();
  const first = Number(process.env.SKEP_TEST_SEED ?? 0);
  for (let seed = first; seed < first + PROGRAMS; seed++) {
    const s = new Source(seed);
    const program = randomProgram(s, 1 + s.below(24));
    both(rigs, (rig) => {
      rig.longMode();
      rig.write(AT.CODE, program);
      // A handler that returns would loop on a fault for ever: HLT it is.
    });
    for (let pass = 0; pass < 4; pass++) {
      both(rigs, (rig) => {
        rig.longMode();
        fill(rig, seed * 4 + pass);
      });
      compare(rigs, new Source(seed * 4 + pass + 1_000_000), `program ${seed} pass ${pass}`);
    }
  }
  assert.ok(PROGRAMS < 10 || Number(rigs.translator.engine.statistics().regions) > PROGRAMS);
});
