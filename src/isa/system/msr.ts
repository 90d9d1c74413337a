// RDMSR, WRMSR, and the time stamp counter (SDM Vol. 2B; Vol. 3B 17.17; tables in msrs.ts).

import type { Local } from "../../wasm/code.ts";
import { i32, op, type Val } from "../../wasm/value.ts";
import { ANOMALY } from "../anomaly.ts";
import {
  anomaly,
  faultingHelper,
  flushScope,
  flushTlb,
  helper,
  hostReadMsr,
  hostWriteMsr,
  tscNow,
  updateMode,
} from "../helper.ts";
import type { InstructionGroup } from "../instruction.ts";
import { notCanonical } from "../segmentation.ts";
import type { Env, Sem } from "../semantics.ts";
import {
  CPL,
  CR0,
  CR0_BIT,
  CR4,
  CR4_BIT,
  EFER,
  EFER_BIT,
  GPR,
  TSC_ADJUST,
  TSC_AUX,
  TSC_OFFSET,
  VECTOR,
} from "../state.ts";
import { allowedBits, hasAny, hasFeature } from "./control.ts";
import { requireCpl0 } from "./modes.ts";
import { CONSTANT_MSRS, type Msr, type MsrBits, SPECIAL_MSR, STORED_MSRS, type StoredMsr } from "./msrs.ts";
import { serialize } from "./serialize.ts";

/** The time stamp counter as the guest sees it. */
export function readTsc(x: Env): Val {
  return op("i64.trunc_sat_f64_u", x.call(tscNow)).add(x.get(TSC_OFFSET));
}

/** x2APIC registers, the TSC deadline and the hypervisor's range are asked for first: they are used most. */
function belongsToHost(number: Val): Val {
  return number.sub(0x800).ltU(0x100).or(number.eq(0x6e0));
}

/** What is done where an MSR is meant, and the model has it. */
function whereIs(x: Env, number: Val, msr: Msr, body: () => void): void {
  const { c } = x;
  c.if(number.eq(msr.number), () => {
    if (msr.features.length === 0) body();
    else c.if(hasAny(x, msr.features), body);
  });
}

const rdmsr = faultingHelper("rdmsr", ["i32"], ["i64"], (x, number) => {
  const { c } = x;
  requireCpl0(x);
  c.if(belongsToHost(number).eqz(), () => {
    for (const msr of STORED_MSRS) whereIs(x, number, msr, () => x.done(x.get(msr.field)));
    whereIs(x, number, SPECIAL_MSR.EFER, () => x.done(x.get(EFER).zx()));
    whereIs(x, number, SPECIAL_MSR.TSC, () => x.done(readTsc(x)));
    whereIs(x, number, SPECIAL_MSR.TSC_ADJUST, () => x.done(x.get(TSC_ADJUST)));
    for (const msr of CONSTANT_MSRS) {
      whereIs(x, number, msr, () => {
        if (msr.access === "WO") x.raise(VECTOR.GP, 0);
        else x.done(msr.value);
      });
    }
  });
  const [known, low, high] = x.callMany(hostReadMsr, number);
  c.if(known.eqz(), () => {
    x.invoke(anomaly, ANOMALY.UNKNOWN_MSR_READ, number);
    x.raise(VECTOR.GP, 0);
  });
  x.done(low.zx().or(high.zx().shl(32)));
});

/** Memory types that MTRRs and the PAT know, as bit sets (SDM Vol. 3A tables 11-8, 11-10). */
const MTRR_TYPES = 0x73;
const PAT_TYPES = 0xf3;

/** 1 where each of the eight bytes of a value is in a set of types. */
const holdsTypes = helper("holdsTypes", ["i64", "i32"], ["i32"], (x, value, types) => {
  const { c } = x;
  const left = c.local("i64", value);
  c.loop((next) => {
    const type = c.let(left.wrap().and(0xff));
    c.if(type.gtU(7).or(types.shrU(type.and(7)).and(1).eqz()), () => x.done(0));
    c.set(left, left.shrU(8));
    c.brIf(next, left.ne(0n));
  });
  x.done(1);
});

function invalid(x: Env, msr: StoredMsr, value: Val): Val {
  switch (msr.check) {
    case "none":
      return i32(0);
    case "canonical":
      return notCanonical(value);
    case "types":
      return x.call(holdsTypes, value, MTRR_TYPES).eqz();
    case "pat":
      return x.call(holdsTypes, value, PAT_TYPES).eqz();
    case "lowType":
      return x.call(holdsTypes, value.and(0xffn), MTRR_TYPES).eqz();
  }
}

/** #GP(0) for bits that the model lacks the feature for, or the value without them. */
function takePart(x: Env, image: Local, { bits, feature, ignoredWith }: MsrBits): void {
  const { c } = x;
  c.if(image.and(bits).ne(0n).and(hasFeature(x, feature).eqz()), () => {
    x.raiseIf(ignoredWith === undefined ? i32(1) : hasFeature(x, ignoredWith).eqz(), VECTOR.GP, 0);
    c.set(image, image.and(~bits));
  });
}

/** WRMSR of EFER (SDM Vol. 3A 2.2.1; LME Vol. 3A 9.8.5). */
const writeEfer = faultingHelper("writeEfer", ["i64"], [], (x, value) => {
  const { c } = x;
  const old = c.let(x.get(EFER));
  const image = c.let(value.wrap());
  const reserved = image.and(allowedBits(x, "EFER_ALLOWED").not());
  x.raiseIf(value.shrU(32).ne(0n).or(reserved.ne(0)), VECTOR.GP, 0);
  const efer = c.let(image.and(~EFER_BIT.LMA).or(old.and(EFER_BIT.LMA)));
  const changed = c.let(old.xor(efer));
  const paging = x.get(CR0).and(CR0_BIT.PG).ne(0);
  x.raiseIf(changed.and(EFER_BIT.LME).ne(0).and(paging), VECTOR.GP, 0);
  x.put(EFER, efer);
  c.if(changed.and(EFER_BIT.NXE), () => x.invoke(flushTlb, flushScope.ALL));
  x.invoke(updateMode);
  x.done();
});

const wrmsr = faultingHelper("wrmsr", ["i32", "i64"], [], (x, number, value) => {
  const { c } = x;
  requireCpl0(x);
  c.if(belongsToHost(number).eqz(), () => {
    for (const msr of STORED_MSRS) {
      whereIs(x, number, msr, () => {
        if (msr.reserved !== 0n) x.raiseIf(value.and(msr.reserved).ne(0n), VECTOR.GP, 0);
        const wrong = invalid(x, msr, value);
        if (wrong.constant !== 0) x.raiseIf(wrong, VECTOR.GP, 0);
        const image = c.local("i64", value);
        for (const part of msr.parts) takePart(x, image, part);
        x.put(msr.field, msr.fixed === 0n ? image : x.get(msr.field).and(msr.fixed).or(image.and(~msr.fixed)));
        x.done();
      });
    }
    whereIs(x, number, SPECIAL_MSR.EFER, () => {
      x.invoke(writeEfer, value);
      x.done();
    });
    // IA32_TSC_ADJUST moves with the counter, and the counter with it (SDM Vol. 3B 17.17.3).
    whereIs(x, number, SPECIAL_MSR.TSC, () => {
      const delta = c.let(value.sub(readTsc(x)));
      x.put(TSC_OFFSET, x.get(TSC_OFFSET).add(delta));
      x.put(TSC_ADJUST, x.get(TSC_ADJUST).add(delta));
      x.done();
    });
    whereIs(x, number, SPECIAL_MSR.TSC_ADJUST, () => {
      x.put(TSC_OFFSET, x.get(TSC_OFFSET).add(value.sub(x.get(TSC_ADJUST))));
      x.put(TSC_ADJUST, value);
      x.done();
    });
    for (const msr of CONSTANT_MSRS) {
      whereIs(x, number, msr, () => {
        if (msr.access === "RO") x.raise(VECTOR.GP, 0);
        else if (msr.reserved !== 0n) x.raiseIf(value.and(msr.reserved).ne(0n), VECTOR.GP, 0);
        x.done();
      });
    }
  });
  c.if(x.call(hostWriteMsr, number, value.wrap(), value.shrU(32).wrap()).eqz(), () => {
    x.invoke(anomaly, ANOMALY.UNKNOWN_MSR_WRITE, number);
    x.raise(VECTOR.GP, 0);
  });
  x.done();
});

/** EDX:EAX, the upper halves of both cleared. */
export function setEdxEax(x: Env, value: Val): void {
  const fixed = x.c.let(value);
  x.setGpr(GPR.RAX, 32, fixed.wrap());
  x.setGpr(GPR.RDX, 32, fixed.shrU(32).wrap());
}

export function edxEax(x: Env): Val {
  return x.gpr(GPR.RAX, 32).zx().or(x.gpr(GPR.RDX, 32).zx().shl(32));
}

function readTimeStamp(x: Sem): void {
  x.raiseIf(x.get(CR4).and(CR4_BIT.TSD).ne(0).and(x.get(CPL).ne(0)), VECTOR.GP, 0);
  setEdxEax(x, readTsc(x));
}

export const MSR_INSTRUCTIONS: InstructionGroup = [
  {
    name: "RDMSR",
    rows: ["0F 32"],
    feature: "msr",
    semantics: (x) => setEdxEax(x, x.call(rdmsr, x.gpr(GPR.RCX, 32))),
  },
  {
    name: "WRMSR",
    rows: ["0F 30; end"],
    feature: "msr",
    semantics: (x) => {
      x.invoke(wrmsr, x.gpr(GPR.RCX, 32), edxEax(x));
      serialize(x);
    },
  },
  { name: "RDTSC", rows: ["0F 31"], feature: "tsc", semantics: readTimeStamp },
  {
    name: "RDTSCP",
    rows: ["0F 01 F9"],
    feature: "rdtscp",
    semantics: (x) => {
      readTimeStamp(x);
      x.setGpr(GPR.RCX, 32, x.get(TSC_AUX).wrap());
    },
  },
  {
    name: "RDPID",
    rows: ["F3 0F C7 /7: Rq; o64", "F3 0F C7 /7: Rd; i64"],
    feature: "rdpid",
    semantics: (x) => x.write(0, x.bits(0) === 64 ? x.get(TSC_AUX) : x.get(TSC_AUX).wrap()),
  },
  {
    name: "RDPMC",
    rows: ["0F 33"],
    // There are no performance counters, so that every index is beyond the last (SDM Vol. 2B RDPMC).
    semantics: (x) => x.raise(VECTOR.GP, 0),
  },
];
