// Instructions that load, store and examine segment registers (SDM Vol. 2A-2B MOV, PUSH, POP, LDS, LAR, LSL, VERR, ARPL, LLDT, LTR, ...).

import { i32, select, type Val } from "../../wasm/value.ts";
import { faultingHelper, updateMode } from "../helper.ts";
import type { InstructionGroup } from "../instruction.ts";
import { push, readStack, releaseStack, type StackBits } from "../integer/stack-access.ts";
import { in64BitMode, notCanonical } from "../segmentation.ts";
import type { Env, Sem } from "../semantics.ts";
import { CPL, CR4, CR4_BIT, type Field, FLAG, LDTR, SEG_ATTR, SHADOW, SREG, TR, VECTOR } from "../state.ts";
import {
  attrOf,
  baseOf,
  descriptorAddress,
  dplOf,
  errorOf,
  fetchDescriptor,
  isConforming,
  isWritableData,
  LDTR_NUMBER,
  limitOf,
  markAccessed,
  segmentPart,
  setNullSegment,
  setPlainSegment,
  setSegment,
  TSS_BUSY,
} from "./descriptors.ts";
import { isLongMode, isRealOrVirtual, requireCpl0, requireProtected, wrapLinear } from "./modes.ts";
import { serialize } from "./serialize.ts";

/** Interrupt shadow of a load of SS: interrupts, and debug traps, wait for one more instruction (SDM Vol. 3A 6.8.3). */
const SHADOW_MOV_SS = 2;

/** Checks and loads SS. */
const loadStackSegment = faultingHelper("loadStackSegment", ["i32"], [], (x, selector) => {
  const { c } = x;
  const error = c.let(errorOf(selector));
  const cpl = c.let(x.get(CPL));
  const rpl = c.let(selector.and(3));
  c.if(error.eqz(), () => {
    x.raiseIf(in64BitMode(x).eqz().or(cpl.eq(3)).or(rpl.ne(cpl)), VECTOR.GP, 0);
    setNullSegment(x, i32(SREG.SS), selector, cpl);
    x.done();
  });
  const stack = fetchDescriptor(x, selector, VECTOR.GP, error);
  const refused = rpl.ne(cpl).or(dplOf(stack.attr).ne(cpl)).or(isWritableData(stack.attr).eqz());
  x.raiseIf(refused, VECTOR.GP, error);
  x.raiseIf(stack.attr.and(SEG_ATTR.P).eqz(), VECTOR.SS, error);
  markAccessed(x, stack.at, stack.attr);
  x.invoke(setSegment, SREG.SS, selector, stack.low);
  x.invoke(updateMode);
  x.done();
});

/** Loads a segment register other than CS with all checks: number, selector (SDM Vol. 2B MOV). */
export const loadSegment = faultingHelper("loadSegment", ["i32", "i32"], [], (x, number, selector) => {
  const { c } = x;
  c.if(
    isRealOrVirtual(x),
    () => {
      setPlainSegment(x, number, selector);
      c.if(number.eq(SREG.SS), () => x.invoke(updateMode));
      x.done();
    },
    undefined,
    "unlikely",
  );
  c.if(number.eq(SREG.SS), () => {
    x.invoke(loadStackSegment, selector);
    x.done();
  });
  const error = c.let(errorOf(selector));
  c.if(error.eqz(), () => {
    setNullSegment(x, number, selector);
    x.done();
  });
  const data = fetchDescriptor(x, selector, VECTOR.GP, error);
  const unreadable = data.attr.and(SEG_ATTR.S).eqz().or(data.attr.and(0xa).eq(8));
  const dpl = c.let(dplOf(data.attr));
  const beyond = isConforming(data.attr)
    .eqz()
    .and(dpl.ltU(selector.and(3)).or(dpl.ltU(x.get(CPL))));
  x.raiseIf(unreadable.or(beyond), VECTOR.GP, error);
  x.raiseIf(data.attr.and(SEG_ATTR.P).eqz(), VECTOR.NP, error);
  markAccessed(x, data.at, data.attr);
  x.invoke(setSegment, number, selector, data.low);
  x.done();
});

function loadConstantSegment(x: Env, number: number, selector: Val): void {
  x.invoke(loadSegment, number, selector);
}

/** Ends a block after a load of SS with the shadow that it casts. */
function castShadow(x: Sem): void {
  x.put(SHADOW, SHADOW_MOV_SS);
  x.endBlock();
}

/** REX.R does not extend the number of a segment register (SDM Vol. 2A 2.2.1.2). */
function segmentRegister(x: Sem, n: number): Val {
  return x.registerNumber(n).and(7);
}

function moveToSegment(x: Sem): void {
  const { c } = x;
  const number = c.let(segmentRegister(x, 0));
  x.raiseIf(number.gtU(SREG.GS).or(number.eq(SREG.CS)), VECTOR.UD);
  x.invoke(loadSegment, number, x.read(1));
  c.if(number.eq(SREG.SS), () => castShadow(x), undefined, "unlikely");
}

function moveFromSegment(x: Sem): void {
  const number = x.c.let(segmentRegister(x, 1));
  x.raiseIf(number.gtU(SREG.GS), VECTOR.UD);
  const selector = segmentPart(x, number, "selector");
  x.write(0, x.bits(0) === 64 ? selector.zx() : selector);
}

const NUMBER_OF = { ES: SREG.ES, CS: SREG.CS, SS: SREG.SS, DS: SREG.DS, FS: SREG.FS, GS: SREG.GS } as const;
type SegmentName = keyof typeof NUMBER_OF;

function pushSegment(name: SegmentName, row: string): InstructionGroup[number] {
  return {
    name: "PUSH",
    rows: [row],
    semantics: (x) => {
      const selector = x.c.let(segmentPart(x, i32(NUMBER_OF[name]), "selector"));
      push(x, x.opsize as StackBits, x.opsize === 64 ? selector.zx() : selector, x.long);
    },
  };
}

function popSegment(name: SegmentName, row: string): InstructionGroup[number] {
  return {
    name: "POP",
    rows: [row],
    semantics: (x) => {
      const bits = x.opsize as StackBits;
      const value = x.c.let(readStack(x, bits, 0n, x.long));
      const selector = x.c.let(value.wrap().and(0xffff));
      if (name === "SS") {
        x.invoke(popStackSegment, selector, bits / 8);
        castShadow(x);
        return;
      }
      loadConstantSegment(x, NUMBER_OF[name], selector);
      releaseStack(x, BigInt(bits / 8), x.long);
    },
  };
}

/** POP SS outside 64-bit mode: the pointer is released as wide as the old segment says. Selector, bytes. */
const popStackSegment = faultingHelper("popStackSegment", ["i32", "i32"], [], (x, selector, bytes) => {
  const { c } = x;
  const wide = c.let(segmentPart(x, i32(SREG.SS), "attr").and(SEG_ATTR.DB));
  x.invoke(loadSegment, SREG.SS, selector);
  c.if(
    wide,
    () => x.setGpr(4, 32, x.gpr(4, 32).add(bytes)),
    () => x.setGpr(4, 16, x.gpr(4, 16).add(bytes).and(0xffff)),
  );
  x.done();
});

function loadFarPointer(name: SegmentName, row: string): InstructionGroup[number] {
  return {
    name: `L${name}`,
    rows: [row],
    semantics: (x) => {
      const size = x.opsize / 8;
      const offset = x.load(x.opsize, x.addressAt(1, 0, size));
      const selector = x.load(16, x.addressAt(1, size, 2));
      loadConstantSegment(x, NUMBER_OF[name], selector);
      x.write(0, offset);
      // A new SS changes the width of the stack pointer.
      if (name === "SS") x.endBlock();
    },
  };
}

// Examination: ZF says whether the segment may be used that way.

/** Descriptor of a selector for LAR, LSL, VERR, VERW, or 0 where it is null or outside its table. */
const examine = faultingHelper("examine", ["i32"], ["i64"], (x, selector) => {
  const { c } = x;
  c.if(errorOf(selector).eqz(), () => x.done(0n));
  const at = x.call(descriptorAddress, selector, 8);
  c.if(at.eq(-1n), () => x.done(0n));
  x.done(x.load(64, at, "system"));
});

/** 1 where privilege allows to look at a segment. */
function visible(x: Env, selector: Val, attr: Val): Val {
  const dpl = dplOf(attr);
  return isConforming(attr).or(dpl.geU(x.get(CPL)).and(dpl.geU(selector.and(3))));
}

/** System descriptor types that LAR and LSL accept, as bit sets (SDM Vol. 2A LAR table 3-51, LSL table 3-54). */
const LAR_TYPES = { legacy: 0x1a3e, long: 0x1a04 } as const;
const LSL_TYPES = { legacy: 0x0a0e, long: 0x0a04 } as const;

/** LAR and LSL: selector, set of system types in legacy and in IA-32e mode; gives the descriptor, or 0 where ZF is to be clear. */
const inspect = faultingHelper("inspect", ["i32", "i32", "i32"], ["i64"], (x, selector, legacy, long) => {
  const { c } = x;
  const descriptor = x.call(examine, selector);
  const attr = c.let(attrOf(descriptor));
  const types = c.let(select(isLongMode(x), long, legacy));
  const known = c.let(attr.and(SEG_ATTR.S).or(types.shrU(attr.and(0xf)).and(1)));
  c.if(
    descriptor
      .eqz()
      .or(known.eqz())
      .or(visible(x, selector, attr).eqz()),
    () => x.done(0n),
  );
  // In IA-32e mode system descriptors are 16 bytes long, and must lie in the table as a whole.
  c.if(attr.and(SEG_ATTR.S).eqz().and(isLongMode(x).ne(0)), () => {
    const at = x.call(descriptorAddress, selector, 16);
    c.if(at.eq(-1n), () => x.done(0n));
    x.c.if(x.load(64, at.add(8n), "system").bits(40, 5).ne(0n), () => x.done(0n));
  });
  x.done(descriptor);
});

function inspectInstruction(
  name: string,
  opcode: string,
  types: { readonly legacy: number; readonly long: number },
  value: (descriptor: Val) => Val,
): InstructionGroup[number] {
  return {
    name,
    rows: [`0F ${opcode} /r: Gv, Ew`],
    writes: "Z",
    semantics: (x) => {
      requireProtected(x);
      const descriptor = x.call(inspect, x.read(1), types.legacy, types.long);
      const found = x.c.let(descriptor.ne(0n));
      x.c.if(found, () => {
        const result = value(descriptor);
        x.write(0, x.opsize === 64 ? result.zx() : x.opsize === 16 ? result.and(0xffff) : result);
      });
      x.setSomeFlags(FLAG.ZF, found.shl(6));
    },
  };
}

/** 1 where a segment may be read (write = 0) or written from the present privilege. */
const verify = faultingHelper("verify", ["i32", "i32"], ["i32"], (x, selector, write) => {
  const { c } = x;
  const descriptor = x.call(examine, selector);
  const attr = c.let(attrOf(descriptor));
  const readable = attr.and(SEG_ATTR.S).ne(0).and(attr.and(0xa).ne(8));
  const allowed = select(write, isWritableData(attr), readable);
  x.done(
    descriptor
      .ne(0n)
      .and(visible(x, selector, attr))
      .and(allowed),
  );
});

function verifyInstruction(name: string, reg: number, write: number): InstructionGroup[number] {
  return {
    name,
    rows: [`0F 00 /${reg}: Ew`],
    writes: "Z",
    semantics: (x) => {
      requireProtected(x);
      x.setSomeFlags(FLAG.ZF, x.call(verify, x.read(0), write).shl(6));
    },
  };
}

/** Loads LDTR. */
const loadLdt = faultingHelper("loadLdt", ["i32"], [], (x, selector) => {
  const { c } = x;
  const error = c.let(errorOf(selector));
  c.if(error.eqz(), () => {
    setNullSegment(x, i32(LDTR_NUMBER), selector);
    x.done();
  });
  const [low, high] = x.callMany(systemDescriptor, selector);
  const attr = c.let(attrOf(low));
  x.raiseIf(attr.and(0x1f).ne(2), VECTOR.GP, error);
  x.raiseIf(attr.and(SEG_ATTR.P).eqz(), VECTOR.NP, error);
  x.put(LDTR.selector, selector);
  x.put(LDTR.base, baseOf(low).or(high.shl(32)));
  x.put(LDTR.limit, limitOf(low));
  x.put(LDTR.attr, attr);
  x.done();
});

/** Reads the descriptor of an LDT or TSS from the GDT: the usual eight bytes, and in IA-32e mode the upper half of the base. */
const systemDescriptor = faultingHelper("systemDescriptor", ["i32"], ["i64", "i64"], (x, selector) => {
  const { c } = x;
  const error = c.let(errorOf(selector));
  x.raiseIf(selector.and(4), VECTOR.GP, error);
  const { at, low } = fetchDescriptor(x, selector, VECTOR.GP, error);
  c.if(isLongMode(x), () => {
    x.raiseIf(x.call(descriptorAddress, selector, 16).eq(-1n), VECTOR.GP, error);
    const high = x.load(64, at.add(8n), "system");
    x.raiseIf(high.bits(40, 5).ne(0n), VECTOR.GP, error);
    x.raiseIf(notCanonical(c.let(baseOf(low).or(high.shl(32)))), VECTOR.GP, error);
    x.done(low, high.and(0xffffffffn));
  });
  x.done(low, 0n);
});

/** Loads TR and marks the TSS busy. */
const loadTask = faultingHelper("loadTask", ["i32"], [], (x, selector) => {
  const { c } = x;
  const error = c.let(errorOf(selector));
  x.raiseIf(error.eqz(), VECTOR.GP, 0);
  const [low, high] = x.callMany(systemDescriptor, selector);
  const attr = c.let(attrOf(low));
  const type = c.let(attr.and(0x1f));
  const available = select(isLongMode(x), type.eq(9), type.and(~8).eq(1));
  x.raiseIf(available.eqz(), VECTOR.GP, error);
  x.raiseIf(attr.and(SEG_ATTR.P).eqz(), VECTOR.NP, error);
  const at = x.call(descriptorAddress, selector, 8);
  x.updateByte(x.c.let(wrapLinear(x, at.add(5n))), "or", TSS_BUSY);
  x.put(TR.selector, selector);
  x.put(TR.base, baseOf(low).or(high.shl(32)));
  x.put(TR.limit, limitOf(low));
  x.put(TR.attr, attr.or(2));
  x.done();
});

/** #GP(0) for SGDT, SIDT, SLDT, SMSW and STR of user code where CR4.UMIP forbids them (SDM Vol. 3A 2.5). */
export function checkUmip(x: Env): void {
  x.raiseIf(x.get(CR4).and(CR4_BIT.UMIP).ne(0).and(x.get(CPL).ne(0)), VECTOR.GP, 0);
}

function storeSelector(name: string, reg: number, field: Field): InstructionGroup[number] {
  return {
    name,
    rows: [`0F 00 /${reg}: Mw`, `0F 00 /${reg}: Rv`],
    semantics: (x) => {
      requireProtected(x);
      checkUmip(x);
      x.write(0, x.bits(0) === 64 ? x.get(field).zx() : x.get(field));
    },
  };
}

function loadSelector(name: string, reg: number, load: typeof loadLdt): InstructionGroup[number] {
  return {
    name,
    rows: [`0F 00 /${reg}: Ew`],
    semantics: (x) => {
      requireProtected(x);
      requireCpl0(x);
      x.invoke(load, x.read(0));
      serialize(x);
    },
  };
}

export const SEGMENT_INSTRUCTIONS: InstructionGroup = [
  { name: "MOV", rows: ["8E /r: Sw, Ew; end"], semantics: moveToSegment },
  { name: "MOV", rows: ["8C /r: Mw, Sw", "8C /r: Rv, Sw"], semantics: moveFromSegment },
  pushSegment("ES", "06; i64, stack"),
  pushSegment("CS", "0E; i64, stack"),
  pushSegment("SS", "16; i64, stack"),
  pushSegment("DS", "1E; i64, stack"),
  pushSegment("FS", "0F A0; d64, stack"),
  pushSegment("GS", "0F A8; d64, stack"),
  popSegment("ES", "07; i64, stack"),
  popSegment("SS", "17; i64, stack, end"),
  popSegment("DS", "1F; i64, stack"),
  popSegment("FS", "0F A1; d64, stack"),
  popSegment("GS", "0F A9; d64, stack"),
  loadFarPointer("ES", "C4 /r: Gv, Mp; i64"),
  loadFarPointer("DS", "C5 /r: Gv, Mp; i64"),
  loadFarPointer("SS", "0F B2 /r: Gv, Mp; end"),
  loadFarPointer("FS", "0F B4 /r: Gv, Mp"),
  loadFarPointer("GS", "0F B5 /r: Gv, Mp"),
  storeSelector("SLDT", 0, LDTR.selector),
  storeSelector("STR", 1, TR.selector),
  loadSelector("LLDT", 2, loadLdt),
  loadSelector("LTR", 3, loadTask),
  verifyInstruction("VERR", 4, 0),
  verifyInstruction("VERW", 5, 1),
  inspectInstruction("LAR", "02", LAR_TYPES, (descriptor) => descriptor.shrU(32).wrap().and(0xf0ff00)),
  inspectInstruction("LSL", "03", LSL_TYPES, limitOf),
  {
    name: "ARPL",
    rows: ["63 /r: Ew, Gw; i64"],
    writes: "Z",
    semantics: (x) => {
      requireProtected(x);
      // Written only where the RPL changes (SDM Vol. 2A ARPL): a page that is read-only may be examined.
      const old = x.read(0);
      const rpl = x.c.let(x.read(1).and(3));
      const changed = x.c.let(old.and(3).ltU(rpl));
      x.c.if(changed, () => x.write(0, old.and(0xfffc).or(rpl)));
      x.setSomeFlags(FLAG.ZF, changed.shl(6));
    },
  },
];
