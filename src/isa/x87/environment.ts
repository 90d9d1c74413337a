// The x87 environment and state in memory: FNSTENV, FLDENV, FNSAVE, FRSTOR (Intel SDM Vol. 1 8.1.10, figures 8-9 to 8-12).

import type { Local } from "../../wasm/code.ts";
import { i32, i64, type Operand, select, type Val } from "../../wasm/value.ts";
import { faultingHelper, helper } from "../helper.ts";
import { checksTypes, in64BitMode } from "../segmentation.ts";
import type { Env } from "../semantics.ts";
import { FCS, FCW, FDP, FDS, FIP, FOP, FSW, FTW, X87_BASE } from "../state.ts";
import { KIND, x87Kind } from "./format.ts";
import { EXCEPTIONS, physical, STATUS, summarise } from "./state.ts";

export const ENVIRONMENT_SIZE = { 16: 14, 32: 28 } as const;
export const STATE_SIZE = { 16: 94, 32: 108 } as const;
const REGISTER_BYTES = 10;
const TAG_EMPTY = 3;
const FOP_MASK = 0x7ff;
/** Bit 6 always reads as 1; bits 7 and 13 to 15 as 0. */
const CONTROL_WRITABLE = 0x1f3f;
const CONTROL_FIXED = 0x40;
export const INITIAL_CONTROL = 0x37f;

export function loadControl(x: Env, value: Val): void {
  x.put(FCW, value.and(CONTROL_WRITABLE).or(CONTROL_FIXED));
}

/** FNINIT; the registers keep their contents. */
export const x87Initialise = helper("x87Initialise", [], [], (x) => {
  x.put(FCW, INITIAL_CONTROL);
  for (const field of [FSW, FTW, FOP, FCS, FDS]) x.put(field, 0);
  for (const field of [FIP, FDP]) x.put(field, 0);
  x.done();
});

/** The tag word in full: 0 valid, 1 zero, 2 special, 3 empty for each physical register (SDM Vol. 1 8.1.7). */
const x87FullTags = helper("x87FullTags", [], ["i32"], (x) => {
  const { c } = x;
  const tags = c.local("i32", 0);
  const number = c.local("i32", 8);
  c.loop((next) => {
    c.set(number, number.sub(1));
    const tag = c.local("i32", TAG_EMPTY);
    c.if(x.get(FTW).shrU(number).and(1), () => {
      const at = number.shl(4);
      const kind = x.call(x87Kind, x.cpu.ld64(at, X87_BASE), x.cpu.ld32(at, X87_BASE + 8));
      c.set(tag, select(kind.eq(KIND.NORMAL), i32(0), select(kind.eq(KIND.ZERO), i32(1), 2)));
    });
    c.set(tags, tags.shl(2).or(tag));
    c.brIf(next, number);
  });
  x.done(tags);
});

/** One bit a register from the tag word in full. */
function abridged(c: Env["c"], tags: Val): Val {
  // Both bits of a tag set: empty. Then every second bit is gathered.
  const isEmpty = tags.and(tags.shrU(1)).and(0x5555);
  let bits = c.let(isEmpty.xor(0x5555));
  for (const [shift, mask] of [
    [1, 0x3333],
    [2, 0x0f0f],
    [4, 0x00ff],
  ]) {
    bits = c.let(bits.or(bits.shrU(shift)).and(mask));
  }
  return bits;
}

/** Linear addresses wrap at 4 GiB outside 64-bit mode. */
function linearMask(x: Env): Val {
  return x.c.let(select(in64BitMode(x), i64(-1), i64(0xffffffffn)));
}

/** (linear, wide) -> field of 16 or 32 bits. */
const x87LoadField = faultingHelper("x87LoadField", ["i64", "i32"], ["i32"], (x, linear, wide) => {
  x.c.if(wide, () => x.done(x.load(32, linear)));
  x.done(x.load(16, linear));
});

const x87StoreField = faultingHelper("x87StoreField", ["i64", "i32", "i32"], [], (x, linear, wide, value) => {
  x.c.if(
    wide,
    () => x.store(32, linear, value),
    () => x.store(16, linear, value),
  );
  x.done();
});

/** Order of the fields, and which of them are written with ones in the upper half of 32 bits. */
const FIELD = { CONTROL: 0, STATUS: 1, TAGS: 2, IP: 3, CS_OPCODE: 4, DP: 5, DS: 6, COUNT: 7 } as const;

/** Pointers as the layout has them: (wide) -> IP, CS and opcode, DP, DS. */
const x87Pointers = helper("x87Pointers", ["i32"], ["i32", "i32", "i32", "i32"], (x, wide) => {
  const { c } = x;
  const ip = c.let(x.get(FIP).wrap());
  const dp = c.let(x.get(FDP).wrap());
  const opcode = c.let(x.get(FOP).and(FOP_MASK));
  c.if(checksTypes(x), () => {
    const cs = c.let(x.get(FCS).and(0xffff));
    const ds = x.get(FDS).and(0xffff);
    c.if(wide, () => x.done(ip, cs.or(opcode.shl(16)), dp, ds.or(0xffff0000)));
    x.done(ip, cs, dp, ds);
  });
  // Real-address and virtual-8086 mode: linear addresses, split after 16 bits.
  const linearIp = c.let(x.get(FCS).and(0xffff).shl(4).add(ip));
  const linearDp = c.let(x.get(FDS).and(0xffff).shl(4).add(dp));
  const upper = (address: Val): Val => c.let(select(wide, address.shrU(16), address.bits(16, 4)).shl(12));
  const ones = c.let(select(wide, i32(0xffff0000), 0));
  const lower = (address: Val): Val => address.and(0xffff).or(ones);
  x.done(lower(linearIp), upper(linearIp).or(opcode), lower(linearDp), upper(linearDp));
});

/** (linear, wide): stores the environment. The caller has checked that all of it can be written. */
const x87StoreEnvironment = faultingHelper("x87StoreEnvironment", ["i64", "i32"], [], (x, linear, wide) => {
  const { c } = x;
  const mask = linearMask(x);
  const ones = c.let(select(wide, i32(0xffff0000), 0));
  const [ip, csOpcode, dp, ds] = x.callMany(x87Pointers, wide);
  const values = [x.get(FCW).or(ones), x.get(FSW).or(ones), x.call(x87FullTags).or(ones), ip, csOpcode, dp, ds];
  values.forEach((value, n) => {
    x.invoke(x87StoreField, fieldAddress(linear, wide, n).and(mask), wide, value);
  });
  x.done();
});

function fieldAddress(linear: Val, wide: Val, n: number): Val {
  return linear.add(select(wide, i64(n * 4), i64(n * 2)));
}

/** (linear, wide) -> the seven fields. */
const x87LoadFields = faultingHelper(
  "x87LoadFields",
  ["i64", "i32"],
  Array.from({ length: FIELD.COUNT }, () => "i32" as const),
  (x, linear, wide) => {
    const mask = linearMask(x);
    const fields = Array.from({ length: FIELD.COUNT }, (_, n) =>
      x.call(x87LoadField, fieldAddress(linear, wide, n).and(mask), wide),
    );
    x.done(...fields);
  },
);

/** (wide, seven fields): takes an environment over. */
const x87SetEnvironment = helper(
  "x87SetEnvironment",
  Array.from({ length: FIELD.COUNT + 1 }, () => "i32" as const),
  [],
  (x, wide, control, status, tags, ip, csOpcode, dp, ds) => {
    const { c } = x;
    loadControl(x, control);
    x.put(FSW, status.and(0xffff));
    x.put(FTW, abridged(c, tags));
    summarise(x);
    c.if(
      checksTypes(x),
      () => {
        x.put(FIP, ip.zx());
        x.put(FDP, dp.zx());
        x.put(FCS, csOpcode.and(0xffff));
        x.put(FDS, ds.and(0xffff));
        // The layout of 16 bits has no opcode.
        x.put(FOP, select(wide, csOpcode.shrU(16), 0).and(FOP_MASK));
      },
      () => {
        const joined = (low: Val, high: Val): Val => {
          const upper = high.shrU(12).and(select(wide, i32(0xffff), 0xf));
          return low.and(0xffff).or(upper.shl(16)).zx();
        };
        x.put(FIP, joined(ip, csOpcode));
        x.put(FDP, joined(dp, ds));
        x.put(FCS, 0);
        x.put(FDS, 0);
        x.put(FOP, csOpcode.and(FOP_MASK));
      },
    );
    x.done();
  },
);

/** Faults where not all of `bytes` bytes can be written; they lie in two pages at most. */
function probe(x: Env, linear: Val, mask: Val, bytes: Val): void {
  x.probeWrite(8, linear);
  x.probeWrite(8, linear.add(bytes.sub(1).zx()).and(mask));
}

/** (linear, wide): FNSTENV, which masks all exceptions when it has stored them. */
export const x87SaveEnvironment = faultingHelper("x87SaveEnvironment", ["i64", "i32"], [], (x, linear, wide) => {
  const size = select(wide, i32(ENVIRONMENT_SIZE[32]), ENVIRONMENT_SIZE[16]);
  probe(x, linear, linearMask(x), size);
  x.invoke(x87StoreEnvironment, linear, wide);
  x.put(FCW, x.get(FCW).or(EXCEPTIONS));
  summarise(x);
  x.done();
});

/** (linear, wide): FLDENV. */
export const x87RestoreEnvironment = faultingHelper("x87RestoreEnvironment", ["i64", "i32"], [], (x, linear, wide) => {
  const fields = x.callMany(x87LoadFields, linear, wide);
  x.invoke(x87SetEnvironment, wide, ...fields);
  x.done();
});

/** Address of ST(n) in an image of the whole state. */
function registerAddress(linear: Val, mask: Val, wide: Val, n: Local, displacement: number): Val {
  const size = select(wide, i32(ENVIRONMENT_SIZE[32]), ENVIRONMENT_SIZE[16]);
  return linear.add(n.mul(REGISTER_BYTES).add(size).add(displacement).zx()).and(mask);
}

function forEachRegister(x: Env, body: (n: Local) => void): void {
  const { c } = x;
  const n = c.local("i32", 0);
  c.loop((next) => {
    body(n);
    c.set(n, n.add(1));
    c.brIf(next, n.ltU(8));
  });
}

function registerPlace(x: Env, n: Operand): Val {
  return x.c.let(physical(x, n).shl(4));
}

// The registers lie on even addresses, and alignment is checked by no more than the operand size (SDM Vol. 3A Table 6-7).

/** (linear, wide): FNSAVE, which initialises when it has stored everything. */
export const x87SaveState = faultingHelper("x87SaveState", ["i64", "i32"], [], (x, linear, wide) => {
  const mask = linearMask(x);
  probe(x, linear, mask, select(wide, i32(STATE_SIZE[32]), STATE_SIZE[16]));
  x.invoke(x87StoreEnvironment, linear, wide);
  forEachRegister(x, (n) => {
    const at = registerPlace(x, n);
    for (let part = 0; part < REGISTER_BYTES; part += 2) {
      x.store(16, registerAddress(linear, mask, wide, n, part), x.cpu.ld16u(at, X87_BASE + part));
    }
  });
  x.invoke(x87Initialise);
  x.done();
});

/** (linear, wide): FRSTOR. */
export const x87RestoreState = faultingHelper("x87RestoreState", ["i64", "i32"], [], (x, linear, wide) => {
  const { c } = x;
  const mask = linearMask(x);
  const fields = x.callMany(x87LoadFields, linear, wide);
  // The last byte: what lies between is in one of the two pages.
  const size = select(wide, i32(STATE_SIZE[32]), STATE_SIZE[16]);
  x.load(8, linear.add(size.sub(1).zx()).and(mask));
  x.invoke(x87SetEnvironment, wide, ...fields);
  forEachRegister(x, (n) => {
    const at = registerPlace(x, n);
    for (let part = 0; part < REGISTER_BYTES; part += 2) {
      c.st16(x.cpu, at, x.load(16, registerAddress(linear, mask, wide, n, part)), X87_BASE + part);
    }
  });
  x.done();
});

/** FNCLEX: exception flags, SF, ES and B. */
export function clearExceptions(x: Env): void {
  x.put(FSW, x.get(FSW).and(STATUS.TOP | STATUS.C0 | STATUS.C1 | STATUS.C2 | STATUS.C3));
}
