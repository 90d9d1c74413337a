// Two vCPUs of one thread, one guest RAM: code that one of them changes while the other has it decoded or translated (SDM Vol. 3A 9.1.3,
// "Handling Self- and Cross-Modifying Code").

import assert from "node:assert/strict";
import { test } from "node:test";
import { EXIT } from "../../src/isa/exit.ts";
import { RIP } from "../../src/isa/state.ts";
import { AT, everything, Rig } from "./rig.ts";

const HLT = 0xf4;
const CODE = AT.CODE;
const WRITER = AT.CODE + 0x3000;

/** MOV EAX, imm32 */
const movEax = (value: number): number[] => [0xb8, ...word(value)];
/** MOV dword [imm32], imm32 */
const store = (at: number, value: number): number[] => [0xc7, 0x04, 0x25, ...word(at), ...word(value)];

function word(value: number): number[] {
  return [value & 0xff, (value >> 8) & 0xff, (value >> 16) & 0xff, value >>> 24];
}

function pair(threshold: number | undefined): [Rig, Rig] {
  const rigs: Rig[] = [];
  const host = (other: number) => ({
    protectPage: (page: number) => rigs[other].engine.protectPage(page),
    codeWritten: (at: number, length: number) => rigs[other].engine.codeWritten(at, length),
  });
  rigs[0] = new Rig(everything(), host(1), threshold);
  rigs[1] = new Rig(everything(), host(0), threshold, rigs[0].ram);
  for (const rig of rigs) rig.longMode();
  return [rigs[0], rigs[1]];
}

function run(rig: Rig, at: number): bigint {
  rig.engine.set(RIP, at);
  let last: number = EXIT.BUDGET;
  for (let slice = 0; last === EXIT.BUDGET && slice < 1000; slice++) last = rig.engine.run(20);
  assert.equal(last, EXIT.HLT);
  return rig.engine.gpr(0);
}

for (const [way, threshold] of [
  ["interpreted", undefined],
  ["translated", 1],
] as const) {
  test(`${way}: one vCPU rewrites what the other has run`, () => {
    const [a, b] = pair(threshold);
    a.write(CODE, [...movEax(1), HLT]);
    assert.equal(run(a, CODE), 1n);
    for (let value = 2; value < 60; value++) {
      b.write(WRITER, [...store(CODE + 1, value), HLT]);
      run(b, WRITER);
      assert.equal(run(a, CODE), BigInt(value));
    }
  });

  test(`${way}: a page that one vCPU writes gets its first code at the other`, () => {
    const [a, b] = pair(threshold);
    // The writer has the page in its TLB as one without code.
    b.write(WRITER, [...store(CODE + 1, 5), HLT]);
    a.bytes.set([...movEax(0), HLT], CODE);
    run(b, WRITER);
    run(b, WRITER);
    assert.equal(run(a, CODE), 5n);
    a.bytes.set(word(6), WRITER + 7);
    b.engine.memoryWritten(WRITER, 16);
    run(b, WRITER);
    assert.equal(run(a, CODE), 6n, "its store is seen");
  });

  test(`${way}: both have the code, each changes it in turn`, () => {
    const [a, b] = pair(threshold);
    a.write(CODE, [...movEax(0), HLT]);
    for (let value = 1; value < 40; value++) {
      const [writer, reader] = value % 2 ? [a, b] : [b, a];
      run(reader, CODE);
      run(writer, CODE);
      writer.write(WRITER, [...store(CODE + 1, value), HLT]);
      reader.engine.codeWritten(WRITER, 16);
      run(writer, WRITER);
      assert.equal(run(reader, CODE), BigInt(value));
      assert.equal(run(writer, CODE), BigInt(value));
    }
  });

  test(`${way}: forgetting all blocks at one vCPU leaves the other's protected`, () => {
    const [a, b] = pair(threshold);
    a.write(CODE, [...movEax(1), HLT]);
    assert.equal(run(a, CODE), 1n);
    // The table of engine functions is private to the rig's engine; a flood of blocks runs its arena full.
    b.write(WRITER, [...store(CODE + 1, 9), HLT]);
    (b.engine as unknown as { exports: { flushBlocks(): void } }).exports.flushBlocks();
    run(b, WRITER);
    assert.equal(run(a, CODE), 9n);
  });
}
