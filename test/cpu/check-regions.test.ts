// Check mode: regions are held against the interpreter at every exit, and a region that is wrong is found.

import assert from "node:assert/strict";
import { test } from "node:test";
import { RegionChecker, RegionDifference } from "../../src/cpu/translator/check.ts";
import { compileOnSameThread } from "../../src/cpu/translator/same-thread.ts";
import { Translator } from "../../src/cpu/translator/translator.ts";
import { EXIT } from "../../src/isa/exit.ts";
import type { Instruction } from "../../src/isa/instruction.ts";
import { ACTIVITY, RIP } from "../../src/isa/state.ts";
import { INSTRUCTIONS } from "../../src/isa/table.ts";
import { i32 } from "../../src/wasm/value.ts";
import { BASE, INDEX, randomProgram, Source } from "./programs.ts";
import { AT, everything, onFault, Rig } from "./rig.ts";

function checked(instructions: readonly Instruction[] = INSTRUCTIONS, checker = new RegionChecker()): Rig {
  return new Rig(
    everything(),
    { codeWritten: () => undefined },
    (host) => new Translator(host, { compiler: compileOnSameThread({ instructions, onFault }), threshold: 1 }),
    undefined,
    checker,
  ).longMode();
}

function counts(rig: Rig): { checks: number; skipped: number } {
  const { regionChecks, regionChecksSkipped } = rig.engine.statistics();
  return { checks: Number(regionChecks), skipped: Number(regionChecksSkipped) };
}

test("random programs, checked at every exit of a region", (t) => {
  const rig = checked();
  const tables = rig.bytes.slice(0, AT.HANDLERS + 0x1000);
  for (let seed = 0; seed < 150; seed++) {
    const s = new Source(seed);
    const { bytes, starts } = randomProgram(s, 1 + s.below(24));
    const at = AT.CODE + s.below(0x1000);
    rig.write(at, bytes);
    for (let pass = 0; pass < 8; pass++) {
      rig.write(0, tables);
      const same = bytes.every((byte, n) => rig.bytes[at + n] === byte);
      if (!same) rig.write(at, bytes);
      rig.longMode();
      const { engine } = rig;
      for (let n = 0; n < 16; n++) engine.setGpr(n, s.quad());
      engine.setGpr(4, BigInt(AT.STACK_TOP - 0x800));
      engine.setGpr(BASE, BigInt(AT.DATA + 0x800));
      engine.setGpr(INDEX, BigInt(s.below(16)));
      engine.setGpr(1, BigInt(1 + s.below(20)));
      engine.setRflags(2 | (s.word() & 0x8d5));
      engine.set(ACTIVITY, 0);
      engine.set(RIP, at + (pass < 2 ? 0 : s.pick(starts)));
      for (let slice = 0, last: number = EXIT.BUDGET; slice < 10 && last === EXIT.BUDGET; slice++) {
        last = engine.run(1 + s.below(60));
      }
    }
  }
  const { checks, skipped } = counts(rig);
  t.diagnostic(`${checks} executions checked, ${skipped} not`);
  assert.ok(checks > 5000 && skipped * 5 < checks);
});

/** L: add rax, rcx; mov [rbx], rax; dec ecx; jnz L; hlt */
const LOOP = [0x48, 0x01, 0xc8, 0x48, 0x89, 0x03, 0xff, 0xc9, 0x75, 0xf6, 0xf4];

function runLoop(rig: Rig): void {
  rig.write(AT.CODE, LOOP);
  for (let pass = 0; pass < 3; pass++) {
    rig.engine.setGpr(0, 5n);
    rig.engine.setGpr(1, 10n);
    rig.engine.setGpr(BASE, BigInt(AT.DATA));
    rig.engine.set(RIP, AT.CODE);
    let last: number = EXIT.BUDGET;
    while (last === EXIT.BUDGET) last = rig.engine.run(7);
    assert.equal(rig.view.getUint32(AT.DATA, true), 60);
  }
}

test("a correct loop passes", () => {
  const rig = checked();
  runLoop(rig);
  assert.ok(counts(rig).checks > 0);
});

/** The table with another description of an instruction, as only the translator sees it. */
function wrong(name: string, semantics: Instruction["semantics"]): readonly Instruction[] {
  return INSTRUCTIONS.map((instruction) => (instruction.name === name ? { ...instruction, semantics } : instruction));
}

test("a register that a region leaves wrong is reported", () => {
  const rig = checked(wrong("DEC", (x) => x.write(0, x.read(0).sub(1).and(0xff7f))));
  assert.throws(() => runLoop(rig), RegionDifference);
});

test("flags, and stores to another place, are reported too", () => {
  const noFlags = checked(
    wrong("DEC", (x) => {
      const r = x.c.let(x.read(0).sub(1));
      x.write(0, r);
      x.flagsResult(32, r, i32(1), i32(0));
    }),
  );
  assert.throws(() => runLoop(noFlags), /rflags is/);
  const elsewhere = checked(wrong("MOV", (x) => x.store(64, x.address(0).add(8), x.read(1))));
  assert.throws(() => runLoop(elsewhere), /the byte at host address 0x20000[08]/);
});

test("what the host is asked is answered once", () => {
  const asked: string[] = [];
  const checker = new RegionChecker();
  const rig = new Rig(
    everything(),
    { portIn: (port) => asked.push(`in ${port}`), portOut: (port, _, value) => asked.push(`out ${port} ${value}`) },
    1,
    undefined,
    checker,
  ).longMode();
  // L: in al, 0x10; add edx, eax; out 0x20, al; dec ecx; jnz L; hlt
  const program = [0xe4, 0x10, 0x01, 0xc2, 0xe6, 0x20, 0xff, 0xc9, 0x75, 0xf6, 0xf4];
  rig.write(AT.CODE, program);
  for (let pass = 0; pass < 4; pass++) {
    asked.length = 0;
    rig.engine.setGpr(0, 0n);
    rig.engine.setGpr(1, 5n);
    rig.engine.setGpr(2, 0n);
    rig.engine.set(RIP, AT.CODE);
    assert.equal(rig.engine.run(1000), EXIT.HLT);
    assert.deepEqual(
      asked,
      [1, 3, 5, 7, 9].flatMap((value) => ["in 16", `out 32 ${value}`]),
    );
    assert.equal(rig.engine.gpr(2), 25n);
  }
});
