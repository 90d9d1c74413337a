// Control and debug registers (SDM Vol. 3A 2.5; Vol. 2B MOV CR, MOV DR; Vol. 3B 17.2; TLB rules Vol. 3A 4.10.4).

import { i32, i64, select, type Val } from "../../wasm/value.ts";
import { CPUID_HEADER, CPUID_TABLE, FEATURE_MAP } from "../cpuid-table.ts";
import { featureNumber } from "../features.ts";
import {
  changeSpace,
  faultingHelper,
  flushScope,
  flushTlb,
  loadPdptes,
  readCr8,
  updateMode,
  writeCr8,
} from "../helper.ts";
import type { InstructionGroup } from "../instruction.ts";
import type { Env, Sem } from "../semantics.ts";
import {
  CR0,
  CR0_BIT,
  CR2,
  CR3,
  CR4,
  CR4_BIT,
  DR,
  DR6,
  DR7,
  EFER,
  EFER_BIT,
  MAXPHYADDR,
  SEG_ATTR,
  TR,
  VECTOR,
} from "../state.ts";
import { DR7_GD } from "./events.ts";
import { CS, isLongMode, requireCpl0 } from "./modes.ts";
import { serialize } from "./serialize.ts";

const CR0_DEFINED =
  CR0_BIT.PE |
  CR0_BIT.MP |
  CR0_BIT.EM |
  CR0_BIT.TS |
  CR0_BIT.NE |
  CR0_BIT.WP |
  CR0_BIT.AM |
  CR0_BIT.NW |
  CR0_BIT.CD |
  CR0_BIT.PG;
const CR0_PAGING = CR0_BIT.PE | CR0_BIT.WP | CR0_BIT.PG;
const CR4_PAGING =
  CR4_BIT.PSE | CR4_BIT.PAE | CR4_BIT.PGE | CR4_BIT.PCIDE | CR4_BIT.SMEP | CR4_BIT.SMAP | CR4_BIT.PKE | CR4_BIT.LA57;
/** Bits whose change makes PAE paging load its PDPTEs again (SDM Vol. 3A 4.4.1). */
const CR0_PDPTE = CR0_BIT.PG | CR0_BIT.CD | CR0_BIT.NW;
const CR4_PDPTE = CR4_BIT.PAE | CR4_BIT.PGE | CR4_BIT.PSE | CR4_BIT.SMEP;

/** Bits that may be set in CR4 or EFER on this model. */
export function allowedBits(x: Env, register: "CR4_ALLOWED" | "EFER_ALLOWED" | "XCR0_ALLOWED"): Val {
  return x.cpu.ld32(0, CPUID_TABLE + CPUID_HEADER[register]);
}

/** 1 where the model has a feature. */
export function hasFeature(x: Env, name: string): Val {
  const number = featureNumber(name);
  return x.cpu
    .ld8u(0, FEATURE_MAP + (number >> 3))
    .shrU(number & 7)
    .and(1);
}

/** Not zero where the model has one of several features. */
export function hasAny(x: Env, names: readonly string[]): Val {
  return names.map((name) => hasFeature(x, name)).reduce((some, more) => some.or(more));
}

function has(value: Val, bit: number): Val {
  return value.and(bit).ne(0);
}

/** MOV to CR0: the value, checked and taken over. */
export const writeCr0 = faultingHelper("writeCr0", ["i64"], [], (x, value) => {
  const { c } = x;
  x.raiseIf(value.shrU(32).ne(0n), VECTOR.GP, 0);
  const cr0 = c.let(value.wrap().and(CR0_DEFINED).or(CR0_BIT.ET));
  const old = c.let(x.get(CR0));
  const cr4 = c.let(x.get(CR4));
  const efer = c.let(x.get(EFER));
  const pg = c.let(has(cr0, CR0_BIT.PG));
  const invalid = pg.and(has(cr0, CR0_BIT.PE).eqz()).or(has(cr0, CR0_BIT.NW).and(has(cr0, CR0_BIT.CD).eqz()));
  x.raiseIf(invalid, VECTOR.GP, 0);
  const changed = c.let(old.xor(cr0));
  c.if(has(changed, CR0_BIT.PG), () => {
    const cs64 = has(x.get(CS.attr), SEG_ATTR.L);
    c.if(
      pg,
      () => {
        c.if(has(efer, EFER_BIT.LME), () => {
          const tss16 = has(x.get(TR.attr), SEG_ATTR.P).and(x.get(TR.attr).and(8).eqz());
          x.raiseIf(has(cr4, CR4_BIT.PAE).eqz().or(cs64).or(tss16), VECTOR.GP, 0);
          x.put(EFER, efer.or(EFER_BIT.LMA));
        });
      },
      () => {
        const long = has(efer, EFER_BIT.LMA);
        x.raiseIf(has(cr4, CR4_BIT.PCIDE).or(long.and(cs64)), VECTOR.GP, 0);
        x.put(EFER, efer.and(~EFER_BIT.LMA));
      },
    );
  });
  x.put(CR0, cr0);
  c.if(changed.and(CR0_PDPTE), () => {
    c.if(x.attempt(loadPdptes, x.get(CR3)), () => {
      x.put(CR0, old);
      x.put(EFER, efer);
      x.raise(VECTOR.GP, 0);
    });
  });
  c.if(changed.and(CR0_PAGING), () => x.invoke(flushTlb, flushScope.ALL));
  x.invoke(updateMode);
  x.done();
});

/** Bits of CR3 that are reserved in IA-32e mode; bit 63 says "keep the TLB" with PCIDs and reads as zero. */
const CR3_RESERVED = ~((1n << BigInt(MAXPHYADDR)) - 1n);
const CR3_NO_FLUSH = 1n << 63n;

/** MOV to CR3. */
export const writeCr3 = faultingHelper("writeCr3", ["i64"], [], (x, value) => {
  const { c } = x;
  const pcid = c.let(has(x.get(CR4), CR4_BIT.PCIDE));
  const cr3 = c.let(value.and(select(pcid, i64(~CR3_NO_FLUSH), -1n)));
  c.if(isLongMode(x), () => x.raiseIf(cr3.and(CR3_RESERVED).ne(0n), VECTOR.GP, 0));
  x.invoke(loadPdptes, cr3);
  x.put(CR3, cr3);
  // SDM Vol. 3A 4.10.4.1: without PCIDs all that is not global goes, with them what belongs to the new one, unless bit 63 says that it is good.
  x.invoke(changeSpace, select(pcid, cr3.wrap().and(0xfff), i32(0)), pcid.and(value.ltS(0n)));
  x.done();
});

/** MOV to CR4. */
export const writeCr4 = faultingHelper("writeCr4", ["i64"], [], (x, value) => {
  const { c } = x;
  const cr4 = c.let(value.wrap());
  const old = c.let(x.get(CR4));
  const changed = c.let(old.xor(cr4));
  x.raiseIf(
    value
      .shrU(32)
      .ne(0n)
      .or(cr4.and(allowedBits(x, "CR4_ALLOWED").not()).ne(0)),
    VECTOR.GP,
    0,
  );
  const long = c.let(isLongMode(x).ne(0));
  const paeCleared = has(cr4, CR4_BIT.PAE).eqz();
  const la57 = has(changed, CR4_BIT.LA57);
  x.raiseIf(long.and(paeCleared.or(la57)), VECTOR.GP, 0);
  const pcidSet = has(changed.and(cr4), CR4_BIT.PCIDE);
  x.raiseIf(pcidSet.and(long.eqz().or(x.get(CR3).and(0xfffn).ne(0n))), VECTOR.GP, 0);
  x.put(CR4, cr4);
  c.if(changed.and(CR4_PDPTE), () => {
    c.if(x.attempt(loadPdptes, x.get(CR3)), () => {
      x.put(CR4, old);
      x.raise(VECTOR.GP, 0);
    });
  });
  c.if(changed.and(CR4_PAGING), () => x.invoke(flushTlb, flushScope.ALL));
  x.invoke(updateMode);
  x.done();
});

/** CR0, CR2, CR3, CR4 and CR8 exist; the others are undefined opcodes at any privilege (SDM Vol. 2B MOV to/from control registers). */
function requireControlRegister(x: Env, number: Val): void {
  x.raiseIf(i32(0x11d).shrU(number).and(1).eqz().or(number.gtU(8)), VECTOR.UD);
}

/** Reads a control register: number. An i64. */
const readCr = faultingHelper("readCr", ["i32"], ["i64"], (x, number) => {
  requireControlRegister(x, number);
  requireCpl0(x);
  x.c.switch(
    number,
    [
      [[0], () => x.done(x.get(CR0).zx())],
      [[2], () => x.done(x.get(CR2))],
      [[3], () => x.done(x.get(CR3))],
      [[4], () => x.done(x.get(CR4).zx())],
      [[8], () => x.done(x.call(readCr8).zx())],
    ],
    () => x.raise(VECTOR.UD),
  );
  x.done(0n);
});

const writeCr = faultingHelper("writeCr", ["i32", "i64"], [], (x, number, value) => {
  requireControlRegister(x, number);
  requireCpl0(x);
  x.c.switch(
    number,
    [
      [[0], () => x.invoke(writeCr0, value)],
      [[2], () => x.put(CR2, value)],
      [[3], () => x.invoke(writeCr3, value)],
      [[4], () => x.invoke(writeCr4, value)],
      [
        [8],
        () => {
          x.raiseIf(value.shrU(4).ne(0n), VECTOR.GP, 0);
          x.invoke(writeCr8, value.wrap());
        },
      ],
    ],
    () => x.raise(VECTOR.UD),
  );
  x.done();
});

/** DR6: bits that software can change, and those that read as one (SDM Vol. 3B 17.2.3). */
const DR6_WRITABLE = 0xe00f;
const DR6_ONES = 0xffff0ff0;
/** DR7 (SDM Vol. 3B 17.2.4). */
const DR7_WRITABLE = 0xffff23ff;
const DR7_ONES = 0x400;
const DR6_BD = 1 << 13;

/** Register number of DR4 and DR5 as they stand for DR6 and DR7; #UD, #DB and #GP in their order. */
function debugRegister(x: Env, number: Val): Val {
  const { c } = x;
  const alias = number.and(~1).eq(4);
  x.raiseIf(number.gtU(7).or(alias.and(has(x.get(CR4), CR4_BIT.DE))), VECTOR.UD);
  requireCpl0(x);
  c.if(has(x.get(DR7), DR7_GD), () => {
    x.put(DR6, x.get(DR6).or(DR6_BD));
    x.raise(VECTOR.DB);
  });
  return c.let(select(alias, number.add(2), number));
}

const readDr = faultingHelper("readDr", ["i32"], ["i64"], (x, number) => {
  const register = debugRegister(x, number);
  x.c.switch(
    register,
    [...DR.map((field, n) => [[n], () => x.done(x.get(field))] as const), [[6], () => x.done(x.get(DR6).zx())]],
    () => x.done(x.get(DR7).zx()),
  );
  x.done(0n);
});

const writeDr = faultingHelper("writeDr", ["i32", "i64"], [], (x, number, value) => {
  const register = debugRegister(x, number);
  x.c.if(register.geU(6), () => x.raiseIf(value.shrU(32).ne(0n), VECTOR.GP, 0));
  x.c.switch(
    register,
    [
      ...DR.map((field, n) => [[n], () => x.put(field, value)] as const),
      [[6], () => x.put(DR6, value.wrap().and(DR6_WRITABLE).or(DR6_ONES))],
    ],
    () => {
      x.put(DR7, value.wrap().and(DR7_WRITABLE).or(DR7_ONES));
      // While breakpoints are enabled no access goes by the TLB (src/cpu/breakpoints.ts).
      x.invoke(flushTlb, flushScope.ALL);
    },
  );
  x.done();
});

/** ModRM.mod means nothing here (SDM Vol. 2B MOV to/from control registers). Both widths: a 64-bit register in 64-bit mode, else 32 bits, whatever the operand size. */
function rows(opcode: string, order: "from" | "to", letter: "C" | "D", options: string): readonly string[] {
  return [
    ["q", "o64"],
    ["d", "i64"],
  ].map(([size, only]) => {
    const operands = order === "from" ? `R${size}, ${letter}${size}` : `${letter}${size}, R${size}`;
    return `0F ${opcode} /r: ${operands}; rm ${only}${options}`;
  });
}

function moveFrom(x: Sem, read: typeof readCr): void {
  const value = x.call(read, x.registerNumber(1));
  x.write(0, x.bits(0) === 64 ? value : value.wrap());
}

function moveTo(x: Sem, write: typeof writeCr): void {
  x.invoke(write, x.registerNumber(0), x.read(1).zx());
  serialize(x);
}

export const CONTROL_INSTRUCTIONS: InstructionGroup = [
  { name: "MOV", rows: rows("20", "from", "C", ""), undefined: "OSZAPC", semantics: (x) => moveFrom(x, readCr) },
  { name: "MOV", rows: rows("22", "to", "C", ", end"), undefined: "OSZAPC", semantics: (x) => moveTo(x, writeCr) },
  { name: "MOV", rows: rows("21", "from", "D", ""), undefined: "OSZAPC", semantics: (x) => moveFrom(x, readDr) },
  { name: "MOV", rows: rows("23", "to", "D", ", end"), undefined: "OSZAPC", semantics: (x) => moveTo(x, writeDr) },
];
