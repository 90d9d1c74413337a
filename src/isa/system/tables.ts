// Descriptor table registers, machine status word, task-switched flag (SDM Vol. 2A-2B LGDT, SGDT, LMSW, SMSW, CLTS).

import type { Val } from "../../wasm/value.ts";
import { updateMode } from "../helper.ts";
import type { Instruction, InstructionGroup } from "../instruction.ts";
import { in64BitMode, notCanonical } from "../segmentation.ts";
import type { Sem } from "../semantics.ts";
import { CR0, CR0_BIT, type Field, GDTR_BASE, GDTR_LIMIT, IDTR_BASE, IDTR_LIMIT, VECTOR } from "../state.ts";
import { requireCpl0 } from "./modes.ts";
import { checkUmip } from "./segments.ts";
import { serialize } from "./serialize.ts";

/** Not zero in 64-bit mode: there the base has 64 bits whatever the operand size. */
function wideBase(x: Sem): Val | undefined {
  return x.long ? undefined : x.c.let(in64BitMode(x));
}

/** Emits `wide` in 64-bit mode, else `narrow`. */
function byMode(x: Sem, wide: () => void, narrow: () => void): void {
  const condition = wideBase(x);
  if (condition === undefined) wide();
  else x.c.if(condition, wide, narrow);
}

function loadTable(name: string, reg: number, limitField: Field, baseField: Field): Instruction {
  return {
    name,
    rows: [`0F 01 /${reg}: Ms`],
    semantics: (x) => {
      requireCpl0(x);
      byMode(
        x,
        () => {
          const limit = x.load(16, x.addressAt(0, 0, 2));
          const base = x.load(64, x.addressAt(0, 2, 8));
          x.raiseIf(notCanonical(base), VECTOR.GP, 0);
          x.put(limitField, limit);
          x.put(baseField, base);
        },
        () => {
          const limit = x.load(16, x.addressAt(0, 0, 2));
          const base = x.load(32, x.addressAt(0, 2, 4));
          x.put(limitField, limit);
          x.put(baseField, (x.opsize === 16 ? base.and(0xffffff) : base).zx());
        },
      );
      serialize(x);
    },
  };
}

function storeTable(name: string, reg: number, limitField: Field, baseField: Field): Instruction {
  return {
    name,
    rows: [`0F 01 /${reg}: Ms`],
    semantics: (x) => {
      checkUmip(x);
      byMode(
        x,
        () => {
          x.probeWrite(64, x.addressAt(0, 2, 8));
          x.store(16, x.addressAt(0, 0, 2), x.get(limitField));
          x.store(64, x.addressAt(0, 2, 8), x.get(baseField));
        },
        () => {
          x.probeWrite(32, x.addressAt(0, 2, 4));
          x.store(16, x.addressAt(0, 0, 2), x.get(limitField));
          x.store(32, x.addressAt(0, 2, 4), x.get(baseField).wrap());
        },
      );
    },
  };
}

const MSW_BITS = CR0_BIT.PE | CR0_BIT.MP | CR0_BIT.EM | CR0_BIT.TS;

export const TABLE_INSTRUCTIONS: InstructionGroup = [
  storeTable("SGDT", 0, GDTR_LIMIT, GDTR_BASE),
  storeTable("SIDT", 1, IDTR_LIMIT, IDTR_BASE),
  loadTable("LGDT", 2, GDTR_LIMIT, GDTR_BASE),
  loadTable("LIDT", 3, IDTR_LIMIT, IDTR_BASE),
  {
    name: "SMSW",
    rows: ["0F 01 /4: Mw", "0F 01 /4: Rv"],
    semantics: (x) => {
      checkUmip(x);
      const image = x.get(CR0);
      x.write(0, x.bits(0) === 64 ? image.zx() : x.bits(0) === 16 ? image.and(0xffff) : image);
    },
  },
  {
    name: "LMSW",
    rows: ["0F 01 /6: Ew; end"],
    semantics: (x) => {
      requireCpl0(x);
      // PE can be set, not cleared.
      const image = x.read(0);
      const kept = x.get(CR0).and(~(MSW_BITS & ~CR0_BIT.PE));
      x.put(CR0, kept.or(image.and(MSW_BITS)));
      x.invoke(updateMode);
      serialize(x);
    },
  },
  {
    name: "CLTS",
    rows: ["0F 06; end"],
    semantics: (x) => {
      requireCpl0(x);
      x.put(CR0, x.get(CR0).and(~CR0_BIT.TS));
      x.invoke(updateMode);
      x.endBlock();
    },
  },
];
