// CPUID, from the table that the host wrote for this model, and the bits of it that follow the processor's state (SDM Vol. 2A CPUID).

import type { Val } from "../../wasm/value.ts";
import { ANY_SUBLEAF, CPUID_ENTRY, CPUID_HEADER, CPUID_TABLE } from "../cpuid-table.ts";
import { helper, hostReadMsr } from "../helper.ts";
import type { InstructionGroup } from "../instruction.ts";
import type { Env } from "../semantics.ts";
import { CR4, CR4_BIT, GPR, XCR0 } from "../state.ts";
import { serialize } from "./serialize.ts";
import { xsaveSize } from "./xsave-layout.ts";

const FIRST_ENTRY = CPUID_TABLE + CPUID_HEADER.SIZE;
const IA32_APIC_BASE = 0x1b;
const HYPERVISOR_LEAVES = 0x40000000;
const EXTENDED_LEAVES = 0x80000000;

/** Address of the entry for a leaf and subleaf, or 0. */
const findLeaf = helper("findLeaf", ["i32", "i32"], ["i32"], (x, leaf, subleaf) => {
  const { c } = x;
  const at = c.local("i32", FIRST_ENTRY);
  const end = c.let(
    x.cpu
      .ld32(0, CPUID_TABLE + CPUID_HEADER.COUNT)
      .mul(CPUID_ENTRY.SIZE)
      .add(FIRST_ENTRY),
  );
  c.loop((next) => {
    c.if(at.ltU(end), () => {
      c.if(x.cpu.ld32(at, CPUID_ENTRY.LEAF).eq(leaf), () => {
        const held = c.let(x.cpu.ld32(at, CPUID_ENTRY.SUBLEAF));
        c.if(held.eq(subleaf).or(held.eq(ANY_SUBLEAF)), () => x.done(at));
      });
      c.set(at, at.add(CPUID_ENTRY.SIZE));
      c.br(next);
    });
  });
  x.done(0);
});

/** Changes a flag to what the state says. */
function flag(word: Val, bit: number, on: Val): Val {
  return word.and(~(1 << bit)).or(on.shl(bit));
}

function cr4Bit(x: Env, bit: number): Val {
  return x.get(CR4).and(bit).ne(0);
}

const cpuid = helper("cpuid", [], [], (x) => {
  const { c } = x;
  const leaf = c.local("i32", x.gpr(GPR.RAX, 32));
  const subleaf = c.let(x.gpr(GPR.RCX, 32));
  // A basic or extended leaf beyond the highest answers as the highest basic leaf; hypervisor leaves that are not there give zero.
  const basic = leaf.ltU(HYPERVISOR_LEAVES).or(leaf.geU(EXTENDED_LEAVES));
  const max = c.let(x.cpu.ld32(0, CPUID_TABLE + CPUID_HEADER.MAX_BASIC));
  const maxExtended = c.let(x.cpu.ld32(x.call(findLeaf, EXTENDED_LEAVES, 0), CPUID_ENTRY.EAX));
  const beyond = leaf
    .ltU(EXTENDED_LEAVES)
    .and(leaf.gtU(max))
    .or(leaf.geU(EXTENDED_LEAVES).and(leaf.gtU(maxExtended)));
  c.if(basic.and(beyond), () => c.set(leaf, max));
  const at = x.call(findLeaf, leaf, subleaf);
  const read = (offset: number): Val => c.let(x.cpu.ld32(at, offset));
  const words = [CPUID_ENTRY.EAX, CPUID_ENTRY.EBX, CPUID_ENTRY.ECX, CPUID_ENTRY.EDX].map((offset) =>
    c.local("i32", read(offset)),
  );
  const [, ebx, ecx, edx] = words;
  c.if(at.eqz(), () => {
    for (const word of words) c.set(word, 0);
    // The topology leaves answer any subleaf with its number and the APIC identifier.
    c.if(leaf.eq(0xb).or(leaf.eq(0x1f)), () => {
      c.set(ecx, subleaf.and(0xff));
      c.set(edx, x.cpu.ld32(0, CPUID_TABLE + CPUID_HEADER.APIC_ID));
    });
  });
  c.if(leaf.eq(1), () => {
    const [known, low] = x.callMany(hostReadMsr, IA32_APIC_BASE);
    const hasApic = known.ne(0).and(low.bits(11, 1)).and(edx.bits(9, 1));
    c.set(edx, flag(edx, 9, c.let(hasApic)));
    c.set(ecx, flag(ecx, 27, cr4Bit(x, CR4_BIT.OSXSAVE).and(ecx.bits(26, 1))));
  });
  c.if(leaf.eq(7).and(subleaf.eqz()), () => c.set(ecx, flag(ecx, 4, cr4Bit(x, CR4_BIT.PKE))));
  c.if(leaf.eq(0xd).and(at.ne(0)), () => {
    c.if(subleaf.leU(1), () => c.set(ebx, x.call(xsaveSize, x.get(XCR0))));
  });
  const registers = [GPR.RAX, GPR.RBX, GPR.RCX, GPR.RDX];
  for (const [n, register] of registers.entries()) x.setGpr(register, 32, words[n]);
  x.done();
});

export const CPUID_INSTRUCTIONS: InstructionGroup = [
  {
    name: "CPUID",
    rows: ["0F A2; end"],
    semantics: (x) => {
      x.invoke(cpuid);
      serialize(x);
    },
  },
];
