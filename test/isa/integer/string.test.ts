// String instructions: overlap, direction, page ends, faults in mid-way with exact registers, segments (SDM Vol. 2B REP; Vol. 3A 5.3, 5.4).

import assert from "node:assert/strict";
import { test } from "node:test";
import { FLAG, RIP, SREG } from "../../../src/isa/state.ts";
import { AT } from "../../cpu/rig.ts";
import { Machine, RAX, RCX, RDI, RSI } from "./machine.ts";

const CODE = AT.CODE;
const DATA = AT.DATA;
const REP_MOVSB = [0xf3, 0xa4];
const REP_MOVSQ = [0xf3, 0x48, 0xa5];
const REP_STOSQ = [0xf3, 0x48, 0xab];

function filled(m: Machine, at: number, length: number): number[] {
  const bytes = Array.from({ length }, (_, n) => (n * 7 + (n >> 8) * 13 + 1) & 0xff);
  m.rig.write(at, bytes);
  return bytes;
}

/** What REP MOVS does, element by element. */
function reference(memory: number[], from: number, to: number, count: number, size: number, step: number): number[] {
  const out = [...memory];
  for (let n = 0; n < count; n++) {
    const element = out.slice(from + n * step, from + n * step + size);
    element.forEach((byte, k) => {
      out[to + n * step + k] = byte;
    });
  }
  return out;
}

test("REP MOVS at every overlap does what element-wise copying does", () => {
  const m = new Machine().long();
  const length = 9000;
  for (const [code, size] of [
    [REP_MOVSB, 1],
    [REP_MOVSQ, 8],
  ] as const) {
    for (const distance of [-4097, -8, -3, -1, 0, 1, 3, 7, 8, 9, 100, 4095, 4096]) {
      for (const backwards of [false, true]) {
        const before = filled(m, DATA, length + 8200);
        const count = Math.floor((distance === 1 || distance === 3 ? 300 : 5000) / size);
        const from = 4200 + (backwards ? (count - 1) * size : 0);
        const to = from + distance;
        m.flags(backwards ? FLAG.DF : 0).set({ [RSI]: DATA + from, [RDI]: DATA + to, [RCX]: count });
        m.run(code, 20000);
        const step = backwards ? -size : size;
        assert.deepEqual(m.bytes(DATA, before.length), reference(before, from, to, count, size, step));
        assert.equal(m.gpr(RCX), 0n);
        assert.equal(m.gpr(RSI), BigInt(DATA + from + count * step));
        assert.equal(m.gpr(RDI), BigInt(DATA + to + count * step));
      }
    }
  }
});

test("REP STOS fills with bytes alike and with patterns, over page ends", () => {
  const m = new Machine().long();
  for (const value of [0n, 0x5a5a5a5a5a5a5a5an, 0x0123456789abcdefn]) {
    m.rig.bytes.fill(0xee, DATA, DATA + 0x4000);
    m.set({ [RDI]: DATA + 0x7fb, [RAX]: value, [RCX]: 1500 }).run(REP_STOSQ, 5000);
    const view = m.rig.view;
    for (let n = 0; n < 1500; n++) assert.equal(view.getBigUint64(DATA + 0x7fb + 8 * n, true), value);
    assert.equal(m.bytes(DATA + 0x7fa, 1)[0], 0xee);
    assert.equal(m.bytes(DATA + 0x7fb + 12000, 1)[0], 0xee);
    assert.equal(m.gpr(RDI), BigInt(DATA + 0x7fb + 12000));
  }
});

test("a page fault in mid-way leaves the registers at the element that faulted", () => {
  const m = new Machine().long(3).unmap(0x400000);
  filled(m, 0x3ff000, 0x1000);
  m.set({ [RSI]: 0x3ffffc, [RDI]: DATA, [RCX]: 10 }).run(REP_MOVSB, 3000);
  assert.deepEqual(m.caught, { vector: 14, error: 4, rip: CODE, rsp: AT.STACK_TOP });
  assert.equal(m.cr2, 0x400000n);
  assert.deepEqual([m.gpr(RSI), m.gpr(RDI), m.gpr(RCX)], [0x400000n, BigInt(DATA + 4), 6n]);
  // An element that crosses into the missing page is not half written.
  const wide = new Machine().long(3).unmap(0x400000);
  wide.rig.bytes.fill(0xee, 0x3ff000, 0x400000);
  wide.set({ [RDI]: 0x3ffff4, [RAX]: 0, [RCX]: 4 }).run(REP_STOSQ, 3000);
  assert.deepEqual([wide.caught?.vector, wide.caught?.error, wide.cr2], [14, 6, 0x400000n]);
  assert.deepEqual([wide.gpr(RDI), wide.gpr(RCX)], [0x3ffffcn, 3n]);
  assert.deepEqual(wide.bytes(0x3ffffc, 4), [0xee, 0xee, 0xee, 0xee]);
});

test("a fault in REPE CMPS leaves the flags from before the instruction", () => {
  const m = new Machine().long(3).unmap(0x400000);
  m.rig.bytes.fill(1, 0x3ff000, 0x400000);
  m.rig.bytes.fill(1, DATA, DATA + 0x1000);
  m.flags(FLAG.CF | FLAG.OF)
    .set({ [RSI]: 0x3fffff, [RDI]: DATA, [RCX]: 5 })
    .run([0xf3, 0xa6], 3000);
  assert.equal(m.caught?.vector, 14);
  const frame = Number(m.gpr(4));
  assert.equal(Number(m.rig.view.getBigUint64(frame + 24, true)) & 0x8d5, FLAG.CF | FLAG.OF);
  assert.equal(m.gpr(RCX), 4n);
});

test("REPNE SCAS finds, REPE CMPS compares, and a count of zero changes nothing", () => {
  const m = new Machine().long();
  m.rig.bytes.fill(7, DATA, DATA + 5000);
  m.rig.bytes[DATA + 4500] = 9;
  m.set({ [RDI]: DATA, [RAX]: 9, [RCX]: 5000 }).run([0xf2, 0xae], 20000);
  assert.deepEqual([m.gpr(RDI), m.gpr(RCX)], [BigInt(DATA + 4501), 499n]);
  assert.notEqual(m.engine.rflags() & FLAG.ZF, 0);
  m.rig.bytes.fill(7, DATA + 8192, DATA + 8192 + 5000);
  m.set({ [RSI]: DATA, [RDI]: DATA + 8192, [RCX]: 5000 }).run([0xf3, 0xa6], 20000);
  assert.deepEqual([m.gpr(RSI), m.gpr(RCX)], [BigInt(DATA + 4501), 499n]);
  assert.equal(m.engine.rflags() & (FLAG.ZF | FLAG.CF), 0);
  m.flags(FLAG.CF)
    .set({ [RSI]: 1, [RDI]: 2, [RCX]: 0 })
    .run([0xf3, 0xa6]);
  assert.deepEqual([m.gpr(RSI), m.gpr(RDI), m.engine.rflags() & 0x8d5], [1n, 2n, FLAG.CF]);
});

test("REPE and REPNE CMPS and SCAS end at the element where they must, in all sizes and directions, over page ends", () => {
  const m = new Machine().long();
  const base = DATA + 4096;
  const other = DATA + 5 * 4096;
  let seed = 12345;
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return Math.floor((seed / 2 ** 32) * below);
  };
  for (let round = 0; round < 600; round++) {
    const size = [1, 2, 4, 8][random(4)];
    const scan = random(2) === 1;
    const equalGoesOn = random(2) === 1;
    const backwards = random(2) === 1;
    const count = 1 + random(round % 3 === 0 ? 40 : 1200);
    const step = backwards ? -size : size;
    const first = random(64) + (backwards ? count * size : 0);
    const second = random(64) + (backwards ? count * size : 0);
    const stop = random(count * 2);
    const value = 0x0807060504030201n & ((1n << BigInt(size * 8)) - 1n);
    // Elements that go on are equal to the accumulator, or differ from it in one byte; the one that stops is the other way round.
    const put = (at: number, equal: boolean): void => {
      let element = value;
      if (!equal) element ^= 1n << BigInt(random(size * 8));
      for (let k = 0; k < size; k++) m.rig.bytes[at + k] = Number((element >> BigInt(8 * k)) & 0xffn);
    };
    for (let n = 0; n < count; n++) {
      put(base + first + n * step, true);
      put(other + second + n * step, n === stop ? !equalGoesOn : equalGoesOn);
    }
    const prefix = size === 2 ? [0x66] : [];
    const opcode = [...(size === 8 ? [0x48] : []), (scan ? 0xae : 0xa6) + (size === 1 ? 0 : 1)];
    m.flags(backwards ? FLAG.DF : 0)
      .set({ [RSI]: base + first, [RDI]: other + second, [RAX]: value, [RCX]: count })
      .run([...prefix, equalGoesOn ? 0xf3 : 0xf2, ...opcode], 20000);
    const done = stop < count ? stop + 1 : count;
    const title = `${equalGoesOn ? "REPE" : "REPNE"} ${scan ? "SCAS" : "CMPS"} of ${size}, ${count} from ${first} and ${second}, stop ${stop}`;
    assert.equal(m.gpr(RCX), BigInt(count - done), title);
    assert.equal(m.gpr(RDI), BigInt(other + second + done * step), title);
    if (!scan) assert.equal(m.gpr(RSI), BigInt(base + first + done * step), title);
    const last = other + second + (done - 1) * step;
    let found = 0n;
    for (let k = 0; k < size; k++) found |= BigInt(m.rig.bytes[last + k]) << BigInt(8 * k);
    assert.equal((m.engine.rflags() & FLAG.ZF) !== 0, found === value, title);
    assert.equal((m.engine.rflags() & FLAG.CF) !== 0, value < found, title);
  }
});

test("a long repetition gives way and goes on", () => {
  const m = new Machine().long();
  const length = 2 << 20;
  m.rig.bytes.fill(0x11, 0x400000, 0x400000 + length);
  m.set({ [RSI]: 0x400000, [RDI]: 0x800000, [RCX]: length });
  m.rig.write(CODE, [...REP_MOVSB, 0xeb, 0xfe]);
  m.engine.set(RIP, CODE);
  m.engine.run(1);
  assert.equal(m.rip, CODE);
  const left = Number(m.gpr(RCX));
  assert.ok(left > 0 && left < length, `${left} bytes left`);
  assert.equal(Number(m.gpr(RSI)), 0x400000 + length - left);
  m.engine.run(100);
  assert.equal(m.gpr(RCX), 0n);
  assert.ok(m.bytes(0x800000, length).every((byte) => byte === 0x11));
});

/** Linear pages from PAGES on, in 4-KiB pages; page `n` is at PAGES + its place in `order`. */
const PAGES = 0x600000;
const PAGE_TABLE = 0x7000;
const PRESENT = 1;
const WRITABLE = 2;
const ACCESSED = 0x20;
const DIRTY = 0x40;

function paged(order: readonly number[], flags: (page: number) => number = () => PRESENT | WRITABLE): Machine {
  const m = new Machine().long();
  const { view } = m.rig;
  order.forEach((place, page) => {
    view.setBigUint64(PAGE_TABLE + page * 8, BigInt((PAGES + place * 4096) | flags(page)), true);
  });
  view.setBigUint64(AT.PD + (PAGES >> 21) * 8, BigInt(PAGE_TABLE | PRESENT | WRITABLE), true);
  m.engine.registersChanged();
  return m;
}

function pageFlags(m: Machine, page: number): number {
  return Number(m.rig.view.getBigUint64(PAGE_TABLE + page * 8, true)) & (ACCESSED | DIRTY);
}

test("REP MOVS and REP STOS go through pages wherever these lie", () => {
  const size = 4096;
  for (const [title, order] of [
    ["one behind the other", Array.from({ length: 32 }, (_, n) => n)],
    ["backwards", Array.from({ length: 32 }, (_, n) => 31 - n)],
    ["by twos", Array.from({ length: 32 }, (_, n) => n ^ 2)],
    ["two of them one page", Array.from({ length: 32 }, (_, n) => (n === 20 ? 19 : n))],
  ] as const) {
    for (const [fromOffset, toOffset, bytes] of [
      [0, 0, 12 * size],
      [5, 5, 11 * size],
      [8, 4091, 11 * size + 9],
      [4090, 16, 10 * size],
    ]) {
      for (const code of [REP_MOVSB, REP_MOVSQ]) {
        const m = paged(order);
        const linear = (at: number): number => PAGES + order[at >> 12] * size + (at & (size - 1));
        const unit = code === REP_MOVSB ? 1 : 8;
        const count = Math.floor(bytes / unit);
        const expected = new Map<number, number>();
        for (let n = 0; n < 13 * size; n++) m.rig.bytes[linear(n)] = (n * 7 + (n >> 8) * 13 + 1) & 0xff;
        for (let n = 0; n < count * unit; n++)
          expected.set(linear(14 * size + toOffset + n), m.rig.bytes[linear(fromOffset + n)]);
        const to = PAGES + 14 * size + toOffset;
        m.set({ [RSI]: PAGES + fromOffset, [RDI]: to, [RCX]: count }).run(code, 100000);
        const what = `${title}, ${unit} bytes from ${fromOffset} to ${toOffset}`;
        assert.deepEqual([m.gpr(RCX), m.gpr(RDI)], [0n, BigInt(to + count * unit)], what);
        for (const [at, byte] of expected) if (m.rig.bytes[at] !== byte) assert.fail(`${what}: 0x${at.toString(16)}`);
        m.set({ [RDI]: to, [RAX]: 0x0123456789abcdefn, [RCX]: bytes >> 3 }).run(REP_STOSQ, 100000);
        const last = linear(14 * size + toOffset + (bytes & ~7) - 1);
        assert.deepEqual([m.rig.bytes[last], m.gpr(RCX)], [0x01, 0n], what);
      }
    }
  }
});

test("a long copy stops at the page that may not be written, and marks as written only what it wrote", () => {
  const order = Array.from({ length: 32 }, (_, n) => n);
  const m = paged(order, (page) => PRESENT | (page === 18 ? 0 : WRITABLE));
  filled(m, PAGES, 0x6000);
  m.set({ [RSI]: PAGES, [RDI]: PAGES + 0x10000, [RCX]: 0x6000 }).run(REP_MOVSB, 20000);
  assert.deepEqual([m.caught?.vector, m.caught?.error, m.cr2], [14, 3, BigInt(PAGES + 0x12000)]);
  assert.deepEqual([m.gpr(RSI), m.gpr(RCX)], [BigInt(PAGES + 0x2000), 0x4000n]);
  assert.deepEqual(m.bytes(PAGES + 0x10000, 0x2000), m.bytes(PAGES, 0x2000));
  const short = paged(order);
  short.set({ [RSI]: PAGES, [RDI]: PAGES + 0x10000, [RCX]: 0x2000 }).run(REP_MOVSB, 20000);
  assert.deepEqual(
    [0, 1, 2, 16, 17, 18].map((page) => pageFlags(short, page)),
    [ACCESSED, ACCESSED, 0, ACCESSED | DIRTY, ACCESSED | DIRTY, 0],
  );
});

test("a long copy over code that has run is seen", () => {
  const m = paged(Array.from({ length: 32 }, (_, n) => n));
  // inc edx, on the third page of what is overwritten with NOPs.
  const code = PAGES + 0x12000;
  m.set({ 2: 0 }).run([0xff, 0xc2], 20, code);
  assert.equal(m.gpr(2), 1n);
  m.rig.bytes.fill(0x90, PAGES, PAGES + 0x6000);
  m.set({ [RSI]: PAGES, [RDI]: PAGES + 0x10000, [RCX]: 0x2002 }).run(REP_MOVSB, 20000);
  m.engine.set(RIP, code);
  m.engine.run(20);
  assert.deepEqual([m.gpr(2), m.rip], [1n, code + 2]);
});

test("index registers have the address size", () => {
  const m = new Machine().long();
  filled(m, DATA, 64);
  // 67 rep movsb: the upper halves are ignored and cleared
  m.set({ [RSI]: 0xf_0000_0000n + BigInt(DATA), [RDI]: BigInt(DATA + 32), [RCX]: 0x1_0000_0010n });
  m.run([0x67, ...REP_MOVSB]);
  assert.deepEqual([m.gpr(RSI), m.gpr(RCX)], [BigInt(DATA + 16), 0n]);
  assert.deepEqual(m.bytes(DATA + 32, 16), m.bytes(DATA, 16));
  // 16-bit code: SI wraps at 64 KiB
  const legacy = new Machine();
  legacy.rig.realMode();
  legacy.rig.write(0x10000, [0xf3, 0xa4, 0xeb, 0xfe]);
  legacy.rig.bytes[0xffff] = 0x21;
  legacy.rig.bytes[0] = 0x22;
  legacy.set({ [RSI]: 0xaaaa_ffff, [RDI]: 0x100, [RCX]: 0x5555_0002 });
  legacy.engine.set(RIP, 0);
  legacy.engine.run(50);
  assert.deepEqual(legacy.bytes(0x100, 2), [0x21, 0x22]);
  assert.deepEqual([legacy.gpr(RSI), legacy.gpr(RDI), legacy.gpr(RCX)], [0xaaaa_0001n, 0x102n, 0x5555_0000n]);
});

test("segments: override for the source, base, limit and type", () => {
  const m = new Machine().long();
  m.segment(SREG.FS, 0xc093, 0xffffffff, DATA);
  filled(m, DATA + 0x40, 8);
  m.set({ [RSI]: 0x40, [RDI]: DATA + 0x100, [RCX]: 8 }).run([0x64, ...REP_MOVSB]);
  assert.deepEqual(m.bytes(DATA + 0x100, 8), m.bytes(DATA + 0x40, 8));
  const legacy = new Machine().compatible().segment(SREG.DS, 0x4093, 0xfff, DATA);
  legacy.set({ [RSI]: 0xffe, [RDI]: DATA + 0x2000, [RCX]: 8 }).run(REP_MOVSB, 500);
  assert.deepEqual(
    [legacy.caught?.vector, legacy.caught?.error, legacy.gpr(RSI), legacy.gpr(RCX)],
    [13, 0, 0x1000n, 6n],
  );
  const readOnly = new Machine().compatible().segment(SREG.ES, 0xc091, 0xffffffff);
  readOnly.set({ [RDI]: DATA, [RCX]: 1 }).run([0xf3, 0xaa]);
  assert.deepEqual([readOnly.caught?.vector, readOnly.caught?.rip], [13, CODE]);
  const none = new Machine().compatible().segment(SREG.ES, 0x10000, 0);
  none.set({ [RDI]: DATA, [RCX]: 1 }).run([0xae]);
  assert.equal(none.caught?.vector, 13);
});

test("a string store into its own code is seen", () => {
  const m = new Machine().long();
  // mov ecx, 3; lea rdi, [rip+7]; mov al, 0x90; rep stosb; then three bytes to be overwritten with NOP: inc edx; ud2-like filler
  const code = [0xb9, 3, 0, 0, 0, 0x48, 0x8d, 0x3d, 4, 0, 0, 0, 0xb0, 0x90, 0xf3, 0xaa, 0xff, 0xc2, 0xf8];
  m.set({ 2: 0 }).run(code);
  assert.equal(m.gpr(2), 0n);
  assert.equal(m.rip, CODE + code.length);
});
