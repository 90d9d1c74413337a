// What is known of the mapping of a device's page goes when the manuals say so (SDM Vol. 3A 4.10.4), and rights are asked for at each access.

import assert from "node:assert/strict";
import { test } from "node:test";
import { CR4 } from "../../../src/isa/state.ts";
import { AT, type Rig, SELECTOR } from "../../cpu/rig.ts";
import { assemble } from "./assemble.ts";
import { execute, machine } from "./machine.ts";

/** Linear addresses of two pages of 2 MiB that lead to no RAM. */
const [FIRST, SECOND] = [0x30000000, 0x30200000];
const DEVICE = 0xfe000000;
const [PF, USER_INT] = [14, 0x80];
const entry = (linear: number): number => AT.PD + (linear >>> 21) * 8;

function withDevice(): { rig: Rig; writes: string[] } {
  const writes: string[] = [];
  const rig = machine("max", {
    mmioWrite: (low, _high, bytes, value) => writes.push(`${low.toString(16)}/${bytes} ${value}`),
  }).longMode();
  map(rig, FIRST, DEVICE);
  map(rig, SECOND, DEVICE + 0x400000);
  return { rig, writes };
}

function map(rig: Rig, linear: number, gpa: number, rights = 7n): void {
  rig.view.setBigUint64(entry(linear), BigInt(gpa) | 0x80n | rights, true);
}

const store = (linear: number, value: number): string => `mov rbx, ${linear}; mov dword ptr [rbx], ${value}`;
/** Changes the mapping of FIRST, as guest code. */
const remap = (gpa: number, rights = 7): string =>
  `mov rdi, ${entry(FIRST)}; mov eax, ${gpa | 0x80 | rights}; mov [rdi], rax`;

test("stores to two device pages by turns reach each its own", () => {
  const { rig, writes } = withDevice();
  execute(
    rig,
    [store(FIRST, 1), store(FIRST + 0x10, 2), store(SECOND + 0x1010, 3), store(FIRST + 4, 4), "hlt"].join(";"),
  );
  assert.deepEqual(writes, ["fe000000/4 1", "fe000010/4 2", "fe401010/4 3", "fe000004/4 4"]);
});

test("INVLPG, MOV to CR3 and MOV to CR4 make a changed mapping of a device page count", () => {
  for (const flush of [
    `invlpg [${FIRST} + 0x5000]`,
    "mov rax, cr3; mov cr3, rax",
    "mov rax, cr4; xor rax, 0x80; mov cr4, rax",
  ]) {
    const { rig, writes } = withDevice();
    execute(rig, [store(FIRST, 1), remap(DEVICE + 0x600000), flush, store(FIRST, 2), "hlt"].join(";"));
    assert.deepEqual(writes, ["fe000000/4 1", "fe600000/4 2"], flush);
  }
});

test("a page that was a device's is RAM after INVLPG", () => {
  const { rig, writes } = withDevice();
  execute(
    rig,
    [
      store(FIRST, 1),
      remap(AT.DATA & -0x200000),
      `invlpg [${FIRST}]`,
      store(FIRST + (AT.DATA & 0x1fffff), 0x1234),
      "hlt",
    ].join(";"),
  );
  assert.deepEqual(writes, ["fe000000/4 1"]);
  assert.equal(rig.view.getUint32(AT.DATA, true), 0x1234);
});

test("a device page that the supervisor has used is not the user's, nor writable where it was read", () => {
  const { rig, writes } = withDevice();
  map(rig, FIRST, DEVICE, 3n);
  const toUser = `push ${SELECTOR.USER_DATA}; push ${AT.STACK_TOP}; pushfq; push ${SELECTOR.USER_CODE64}; lea rax, [rip + user]; push rax; iretq; user:`;
  rig.run(assemble(`${store(FIRST, 1)}; ${toUser} ${store(FIRST, 2)}; int ${USER_INT}`, AT.CODE));
  assert.equal(rig.caught(), PF);
  assert.deepEqual(writes, ["fe000000/4 1"]);

  const readOnly = withDevice();
  map(readOnly.rig, FIRST, DEVICE, 1n);
  readOnly.rig.run(assemble(`mov rbx, ${FIRST}; mov eax, [rbx]; mov [rbx], eax; hlt`, AT.CODE));
  assert.equal(readOnly.rig.caught(), PF);
  assert.deepEqual(readOnly.writes, []);
});

test("SMAP holds for a user's device page as soon as AC is clear (SDM Vol. 3A 4.6.1)", () => {
  const { rig, writes } = withDevice();
  rig.engine.set(CR4, Number(rig.engine.get(CR4)) | (1 << 21));
  rig.engine.registersChanged();
  rig.run(assemble(`stac; ${store(FIRST, 1)}; clac; ${store(FIRST, 2)}; hlt`, AT.CODE));
  assert.deepEqual(writes, ["fe000000/4 1"]);
});
