// State from outside that no processor would be in is refused; what processors are in is taken.

import assert from "node:assert/strict";
import { test } from "node:test";
import { CR0_BIT, CR4_BIT, EFER_BIT, FLAG } from "../../src/isa/state.ts";
import type { StateValue } from "../../src/vmm/state.ts";
import { maxModel, Rig } from "./rig.ts";

const PROTECTED = { cr0: CR0_BIT.PE | CR0_BIT.ET };
const LONG = {
  cr0: (CR0_BIT.PE | CR0_BIT.PG | CR0_BIT.ET) >>> 0,
  cr4: CR4_BIT.PAE,
  efer: EFER_BIT.LME | EFER_BIT.LMA,
  cr3: 0x1000n,
};
type Values = { readonly [name: string]: StateValue };

const REFUSED: readonly (readonly [says: RegExp, values: Values])[] = [
  [/CR0.PG needs CR0.PE/, { cr0: CR0_BIT.PG }],
  [/CR0.NW needs CR0.CD/, { cr0: CR0_BIT.NW }],
  [/CR4 has bits/, { cr4: 1 << 30 }],
  [/CR4.PCIDE needs/, { ...PROTECTED, cr4: CR4_BIT.PCIDE | CR4_BIT.PAE }],
  [/EFER has bits/, { efer: 1 << 12 }],
  [/EFER.LMA is/, { ...LONG, efer: EFER_BIT.LME }],
  [/EFER.LMA is/, { ...LONG, efer: EFER_BIT.LMA }],
  [/EFER.LMA is/, { ...LONG, cr0: CR0_BIT.PE }],
  [/EFER.LMA needs CR4.PAE/, { ...LONG, cr4: 0 }],
  [/CR3 is longer/, { ...LONG, cr3: 1n << 62n }],
  [/RFLAGS.VM/, { ...LONG, rflags: FLAG.VM | 2 }],
  [/RFLAGS.VM/, { rflags: FLAG.VM | 2 }],
  [/no such activity/, { activity: 4 }],
  [/no such activity/, { activity: -1 }],
];
const TAKEN: readonly Values[] = [
  {},
  PROTECTED,
  LONG,
  { ...LONG, cr4: CR4_BIT.PAE | CR4_BIT.PCIDE },
  { efer: EFER_BIT.LME },
  { cr0: CR0_BIT.NW | CR0_BIT.CD },
  { ...PROTECTED, rflags: FLAG.VM | 2, activity: 1 },
];

test("control registers that do not go together are refused, others are taken", () => {
  const { engine } = new Rig(maxModel());
  const section = engine.save();
  for (const [says, values] of REFUSED) {
    assert.throws(() => engine.check({ ...section, fields: { ...section.fields, ...values } }), says);
  }
  for (const values of TAKEN) engine.check({ ...section, fields: { ...section.fields, ...values } });
});
