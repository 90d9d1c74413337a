// Makes cases: instruction bytes by a plan's row, and registers, flags and memory that put edge values under the operands, memory
// operands at page ends and beyond them, and branches at places that may and may not be executed.

import { FLAG, GPR } from "../../src/isa/state.ts";
import { operandContent, randomFx } from "./contents.ts";
import { Encoding } from "./encoding.ts";
import type { Plan } from "./plan.ts";
import { integer64, type Random } from "./random.ts";
import { AREA_BYTES, CODE_BASE, DATA_BASE, DATA_END, FX, PAGE, PATCH_ROOM, REQUEST } from "./record.ts";
import { prepare } from "./special.ts";

const MASK_64 = (1n << 64n) - 1n;

/** A case in the making; views into its request record. */
export class Case {
  readonly r: Random;
  readonly plan: Plan;
  readonly long: boolean;
  readonly view: DataView;
  readonly bytes: Uint8Array;
  /** Registers whose value must stay: they form an address or count rounds. */
  readonly pinned = new Set<number>();
  /** Linear address of the memory operand, and its width in bytes; -1 where there is none. */
  target = -1;
  width = 0;
  /** Bits of RFLAGS to start with, besides the fixed ones. */
  flags = 0;
  /** Linear address that the instruction must start at, where that matters. */
  rip = 0;
  readonly encoding: Encoding;

  constructor(r: Random, plan: Plan, record: Uint8Array) {
    this.r = r;
    this.plan = plan;
    this.long = plan.mode === 64;
    this.bytes = record;
    this.view = new DataView(record.buffer, record.byteOffset, record.byteLength);
    this.encoding = new Encoding(this);
  }

  gpr(n: number): bigint {
    return this.view.getBigUint64(REQUEST.GPR + n * 8, true);
  }

  /** Sets a register, in 32-bit code its low half. */
  setGpr(n: number, value: bigint): void {
    this.view.setBigUint64(REQUEST.GPR + n * 8, BigInt.asUintN(this.long ? 64 : 32, value), true);
  }

  pin(n: number, value: bigint): void {
    this.setGpr(n, value);
    this.pinned.add(n);
  }

  /** Puts bytes under an address before the case runs, as far as they lie in the data pages. Slot 0 or 1. */
  patch(slot: 0 | 1, address: number, content: Uint8Array): void {
    const from = Math.max(address, DATA_BASE);
    const to = Math.min(address + content.length, DATA_END, from + PATCH_ROOM[slot]);
    const length = Math.max(0, to - from);
    const at = REQUEST.PATCHES + slot * 8;
    this.view.setUint32(at, from, true);
    this.view.setUint32(at + 4, length, true);
    if (length > 0)
      this.bytes.set(content.subarray(from - address, to - address), slot === 0 ? REQUEST.PATCH_0 : REQUEST.PATCH_1);
  }

  patchInteger(slot: 0 | 1, address: number, value: bigint, bytes: number): void {
    const content = new Uint8Array(8);
    new DataView(content.buffer).setBigUint64(0, value & MASK_64, true);
    this.patch(slot, address, content.subarray(0, bytes));
  }

  /** A data address for an access of that many bytes: mostly inside the pages, often at their ends, sometimes where it faults. */
  place(bytes: number): bigint {
    const { r } = this;
    const room = Math.max(1, AREA_BYTES - bytes);
    const kind = r.below(100);
    if (kind < 35) return BigInt(DATA_BASE + Math.floor(r.below(room) / bytes) * bytes);
    if (kind < 50) return BigInt(DATA_BASE + (r.below(room) & ~15));
    if (kind < 66) return BigInt(DATA_BASE + r.below(room));
    if (kind < 76) return BigInt(DATA_BASE + PAGE - r.below(Math.max(1, bytes)));
    if (kind < 86) return BigInt(DATA_END - bytes);
    if (kind < 92) return BigInt(DATA_END - r.below(Math.max(1, bytes)));
    if (kind < 94) return BigInt(DATA_END + r.below(64));
    if (kind < 96) return BigInt(DATA_BASE - 1 - r.below(Math.max(1, bytes)));
    if (kind < 98 && this.long)
      return (BigInt(0x1000 + r.below(0xe000)) << 48n) | BigInt(DATA_BASE + r.below(AREA_BYTES));
    return BigInt(r.below(0xf000));
  }

  /** An address for a branch: on the code pages beside this instruction, where nothing is mapped, or not canonical. */
  branchTarget(): bigint {
    const { r } = this;
    const kind = r.below(100);
    if (kind < 80) return BigInt(this.codePlace());
    if (kind < 88) return BigInt(CODE_BASE + AREA_BYTES + r.below(0x10000));
    if (kind < 92) return BigInt(DATA_END + r.below(0x10000));
    if (kind < 96 && this.long) return (BigInt(0x1000 + r.below(0xe000)) << 48n) | (r.bits64() & 0xffff_ffff_ffffn);
    return BigInt(r.below(0xf000));
  }

  /** A byte of the code pages that the instruction does not occupy. */
  codePlace(): number {
    for (;;) {
      const at = CODE_BASE + this.r.below(AREA_BYTES - 1);
      if (at < this.rip - 16 || at >= this.rip + 32) return at;
    }
  }
}

function randomFlags(r: Random): number {
  let flags = r.next() & (FLAG.CF | FLAG.PF | FLAG.AF | FLAG.ZF | FLAG.SF | FLAG.OF);
  if (r.chance(30)) flags |= FLAG.DF;
  if (r.chance(4)) flags |= FLAG.AC;
  return flags;
}

/** Where the instruction stands: mostly in the midst of a page, sometimes at a page's end or across it. */
function codeStart(r: Random): number {
  const kind = r.below(100);
  if (kind < 88) return CODE_BASE + 0x200 + r.below(PAGE - 0x400) + (r.chance(30) ? PAGE : 0);
  if (kind < 94) return CODE_BASE + PAGE - r.below(16);
  return CODE_BASE + AREA_BYTES - 1 - r.below(15);
}

/** Writes the request of a new case into `record` (REQUEST.BYTES long). */
export function generate(r: Random, plan: Plan, record: Uint8Array): void {
  const k = new Case(r, plan, record);
  const { view } = k;
  view.setUint32(REQUEST.LEGACY, k.long ? 0 : 1, true);
  view.setBigUint64(REQUEST.PATCHES, 0n, true);
  view.setBigUint64(REQUEST.PATCHES + 8, 0n, true);
  k.rip = codeStart(r);
  k.flags = randomFlags(r);
  for (let n = 0; n < 16; n++)
    view.setBigUint64(REQUEST.GPR + n * 8, k.long ? integer64(r) : n < 8 ? integer64(r) & 0xffffffffn : 0n, true);
  // A stack pointer that is none is rare in programs; keep it on the data pages.
  k.setGpr(GPR.RSP, BigInt(DATA_BASE + 0x800 + (r.below(0x1000) & ~7)));
  randomFx(k, record.subarray(REQUEST.FX, REQUEST.FX + FX.BYTES));
  const adjust = prepare(k);
  k.encoding.addressing();
  if (k.target >= 0) k.patch(0, k.target, operandContent(k, Math.min(k.width, PATCH_ROOM[0])));
  adjust?.();
  const code = k.encoding.assemble();
  view.setUint32(REQUEST.LENGTH, code.length, true);
  record.set(code, REQUEST.CODE);
  view.setBigUint64(REQUEST.RIP, BigInt(k.rip), true);
  view.setBigUint64(REQUEST.RFLAGS, BigInt(k.flags | 0x202), true);
}
