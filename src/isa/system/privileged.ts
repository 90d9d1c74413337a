// HLT, CLI and STI, TLB and cache control, SWAPGS, FS and GS bases, SMAP's AC (SDM Vol. 2A, 2B).

import { EXIT } from "../exit.ts";
import { faultingHelper, flushPage, flushScope, flushSpace, flushTlb, helper, updateMode } from "../helper.ts";
import type { Instruction, InstructionGroup } from "../instruction.ts";
import { notCanonical } from "../segmentation.ts";
import type { Env, Sem } from "../semantics.ts";
import {
  ACTIVITY,
  CPL,
  CR4,
  CR4_BIT,
  type Field,
  FLAG,
  KERNEL_GS_BASE,
  RFLAGS,
  SEGMENTS,
  SHADOW,
  SREG,
  VECTOR,
} from "../state.ts";
import { iopl, isRealOrVirtual, requireCpl0 } from "./modes.ts";
import { serialize } from "./serialize.ts";

const HALTED = 1;
const SHADOW_STI = 1;

/** CLI and STI need CPL not above IOPL; real mode runs at CPL 0, virtual-8086 mode at 3. */
function requireIopl(x: Env): void {
  x.raiseIf(x.get(CPL).gtU(iopl(x)), VECTOR.GP, 0);
}

/** WBINVD and INVD: caches are not modelled, but both serialise (SDM Vol. 3A 9.3). */
function cacheFlush(name: string, row: string): Instruction {
  return {
    name,
    rows: [`${row}; end`],
    semantics: (x) => {
      requireCpl0(x);
      serialize(x);
    },
  };
}

function base(name: string, reg: number, field: Field, write: boolean): Instruction {
  return {
    name,
    rows: [`F3 0F AE /${reg}: Ry; o64`],
    feature: "fsgsbase",
    semantics: (x) => {
      x.raiseIf(x.get(CR4).and(CR4_BIT.FSGSBASE).eqz(), VECTOR.UD);
      if (!write) {
        x.write(0, x.bits(0) === 64 ? x.get(field) : x.get(field).wrap());
        return;
      }
      const value = x.c.let(x.read(0).zx());
      if (x.bits(0) === 64) x.raiseIf(notCanonical(value), VECTOR.GP, 0);
      x.put(field, value);
    },
  };
}

/** Changes RFLAGS.AC for SMAP. */
const setAc = helper("setAc", ["i32"], [], (x, value) => {
  x.c.if(x.get(RFLAGS).shrU(18).xor(value).and(1), () => {
    x.put(RFLAGS, x.get(RFLAGS).xor(FLAG.AC));
    x.invoke(updateMode);
  });
  x.done();
});

function accessControl(name: string, row: string, value: number): Instruction {
  return {
    name,
    rows: [row],
    feature: "smap",
    semantics: (x) => {
      x.raiseIf(x.get(CPL), VECTOR.UD);
      x.invoke(setAc, value);
    },
  };
}

/** INVPCID: type, linear address of the descriptor (SDM Vol. 2A INVPCID). */
const invpcid = faultingHelper("invpcid", ["i64", "i64"], [], (x, type, descriptorAt) => {
  const { c } = x;
  const pcid = x.load(64, descriptorAt);
  const linear = x.load(64, descriptorAt.add(8n));
  x.raiseIf(type.gtU(3n).or(pcid.shrU(12).ne(0n)), VECTOR.GP, 0);
  const disabled = x.get(CR4).and(CR4_BIT.PCIDE).eqz();
  const single = type.leU(1n);
  x.raiseIf(single.and(disabled).and(pcid.ne(0n)), VECTOR.GP, 0);
  c.switch(
    type.wrap(),
    [
      [
        [0],
        () => {
          x.raiseIf(notCanonical(linear), VECTOR.GP, 0);
          x.invoke(flushPage, linear);
        },
      ],
      [[1], () => x.invoke(flushSpace, pcid.wrap())],
      [[2], () => x.invoke(flushTlb, flushScope.ALL)],
    ],
    () => x.invoke(flushTlb, flushScope.SPACES),
  );
  x.done();
});

function invalidatePage(x: Sem): void {
  requireCpl0(x);
  const linear = x.c.let(x.address(0));
  // A non-canonical address does nothing (SDM Vol. 2A INVLPG).
  x.c.if(notCanonical(linear).eqz(), () => x.invoke(flushPage, linear));
  serialize(x);
}

export const PRIVILEGED: InstructionGroup = [
  {
    name: "HLT",
    rows: ["F4; end"],
    semantics: (x) => {
      requireCpl0(x);
      x.put(ACTIVITY, HALTED);
      x.put(SHADOW, 0);
      x.exit(EXIT.HLT);
    },
  },
  {
    name: "CLI",
    rows: ["FA"],
    semantics: (x) => {
      requireIopl(x);
      x.put(RFLAGS, x.get(RFLAGS).and(~FLAG.IF));
    },
  },
  {
    name: "STI",
    rows: ["FB; end"],
    semantics: (x) => {
      requireIopl(x);
      // No shadow where interrupts were on already (SDM Vol. 2B STI).
      x.c.if(x.get(RFLAGS).and(FLAG.IF).eqz(), () => {
        x.put(RFLAGS, x.get(RFLAGS).or(FLAG.IF));
        x.put(SHADOW, SHADOW_STI);
      });
      x.endBlock();
    },
  },
  { name: "INVLPG", rows: ["0F 01 /7: M; end"], semantics: invalidatePage },
  {
    name: "INVPCID",
    rows: ["66 0F 38 82 /r: Gq, M; o64 end", "66 0F 38 82 /r: Gd, M; i64 end"],
    feature: "invpcid",
    semantics: (x) => {
      x.raiseIf(isRealOrVirtual(x), VECTOR.UD);
      requireCpl0(x);
      const at = x.c.let(x.addressAt(1, 0, 16));
      x.invoke(invpcid, x.read(0).zx(), at);
      serialize(x);
    },
  },
  cacheFlush("INVD", "0F 08"),
  cacheFlush("WBINVD", "0F 09"),
  {
    name: "SWAPGS",
    rows: ["0F 01 F8; o64"],
    semantics: (x) => {
      requireCpl0(x);
      const gs = SEGMENTS[SREG.GS].base;
      const user = x.c.let(x.get(gs));
      x.put(gs, x.get(KERNEL_GS_BASE));
      x.put(KERNEL_GS_BASE, user);
    },
  },
  base("RDFSBASE", 0, SEGMENTS[SREG.FS].base, false),
  base("RDGSBASE", 1, SEGMENTS[SREG.GS].base, false),
  base("WRFSBASE", 2, SEGMENTS[SREG.FS].base, true),
  base("WRGSBASE", 3, SEGMENTS[SREG.GS].base, true),
  accessControl("CLAC", "NP 0F 01 CA", 0),
  accessControl("STAC", "NP 0F 01 CB", 1),
];
