// Where processors differ and the guest's processor need not be the host: each entry says what may differ, when, and by which manual.

import { text, unitsApart } from "../isa/x87/host.ts";
import type { Plan } from "./plan.ts";
import { DATA_BASE, FX, REQUEST, RESULT, SELECTOR } from "./record.ts";

/** Offset of a field in an image of XSAVE (SDM Vol. 1 13.4.2). */
const XSTATE_BV = 512;

/** One case with both outcomes. */
interface Outcomes {
  readonly plan: Plan;
  readonly request: DataView;
  readonly host: DataView;
  readonly engine: DataView;
}

interface KnownDifference {
  readonly why: string;
  /** Mnemonics; absent for all. */
  readonly names?: RegExp;
  /** Fields of compare.ts that may differ. */
  readonly fields: RegExp;
  readonly when: (at: Outcomes, field: string) => boolean;
}

const VECTOR = { BREAKPOINT: 3, UD: 6, NP: 11, SS: 12, GP: 13, PF: 14, AC: 17 } as const;
const SUMMARY = 0x80;
const INVALID = 1;
const C1 = 0x200;
const C0_C2_C3 = 0x4500;
const ARITHMETIC = 0x8d5;

const vectorOf = (result: DataView): number => result.getUint32(RESULT.VECTOR, true);
const fswOf = (result: DataView): number => result.getUint16(RESULT.FX + FX.FSW, true);
const ripOf = (result: DataView): bigint => result.getBigUint64(RESULT.RIP, true);
const cr2Of = (result: DataView): bigint => result.getBigUint64(RESULT.CR2, true);

/** Where the memory operand begins, as far as it lies on the data pages (generate.ts fills it there). */
const operandOf = (request: DataView): number => request.getUint32(REQUEST.PATCHES, true);

/** Bits of the 32-bit memory word that a field names in which the outcomes differ, and the byte offset of the word from the operand. */
function memoryWord({ request, host, engine }: Outcomes, field: string): { offset: number; bits: number } {
  const address = Number.parseInt(field.slice(1), 16);
  const word = (result: DataView): number => {
    for (let k = 0; k < result.getUint32(RESULT.CHANGED, true); k++) {
      const at = RESULT.HEAD + k * 8;
      if (result.getUint32(at, true) * 4 + DATA_BASE === address) return result.getUint32(at + 4, true);
    }
    return 0;
  };
  return { offset: address - operandOf(request), bits: word(host) ^ word(engine) };
}

/** Whether bytes [from, to) of a state image are all that differ in a word. */
function within(at: Outcomes, field: string, ranges: readonly (readonly [from: number, to: number])[]): boolean {
  const { offset, bits } = memoryWord(at, field);
  for (let byte = 0; byte < 4; byte++) {
    if (((bits >>> (8 * byte)) & 0xff) === 0) continue;
    if (!ranges.some(([from, to]) => offset + byte >= from && offset + byte < to)) return false;
  }
  return true;
}

const noPendingError = ({ request, host }: Outcomes): boolean =>
  (request.getUint16(REQUEST.FX + FX.FSW, true) & SUMMARY) === 0 &&
  (vectorOf(host) === VECTOR.BREAKPOINT || (fswOf(host) & SUMMARY) === 0);

/** Relative error that the manual allows two approximations to have from each other: each is within 1.5 * 2^-12. */
const APPROXIMATION = 3 * 2 ** -12;

function approximatelyEqual({ host, engine }: Outcomes, field: string): boolean {
  const at = RESULT.FX + FX.XMM + Number(field.slice(3)) * 16;
  for (let lane = 0; lane < 16; lane += 4) {
    if (host.getUint32(at + lane, true) === engine.getUint32(at + lane, true)) continue;
    const a = host.getFloat32(at + lane, true);
    const b = engine.getFloat32(at + lane, true);
    if (!(Math.abs(a - b) <= Math.abs(a) * APPROXIMATION)) return false;
  }
  return true;
}

/** ST(n) as host.ts of the x87 tests prints it. */
function extendedAt(result: DataView, field: string): string {
  const at = RESULT.FX + FX.ST + Number(field.slice(2)) * 16;
  return text(result.getBigUint64(at, true), result.getUint16(at + 8, true));
}

const GPRS = "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split(" ");
const gprOf = (result: DataView, name: string): bigint =>
  result.getBigUint64(RESULT.GPR + GPRS.indexOf(name) * 8, true);

/** A pair of selectors with null ones made zero. */
function nullFree(pair: number): number {
  return [0, 16].reduce((value, shift) => (((pair >>> shift) & 0xfffc) === 0 ? value & ~(3 << shift) : value), pair);
}

function inCompatibility(result: DataView): boolean {
  const cs = result.getUint32(RESULT.CODE_AND_STACK, true) & 0xffff;
  return cs === SELECTOR.CODE_32 || cs === SELECTOR.CODE_16;
}

const FAR = /^(JMP|CALL|RET|IRET|L[DES]S|LSS)$/;

/** Far transfers and loads of far pointers: a memory operand of that kind, an immediate pointer, RETF, IRET. */
function isFar({ row }: Plan): boolean {
  return (
    row.operands.some(({ kind, size }) => size === "p" || kind === "A") ||
    (row.map === 0 && [0xca, 0xcb, 0xcf].includes(row.opcode))
  );
}

const KNOWN: readonly KnownDifference[] = [
  {
    why: "AMD saves and restores the x87 error pointers only while an unmasked exception is pending (APM Vol. 2 11.4.4, FXSAVE)",
    fields: /^(fop|fip|fdp)$/,
    when: ({ host }) => (fswOf(host) & SUMMARY) === 0,
  },
  {
    why: "x87 data pointer that AMD did not restore before the case (APM Vol. 2 11.4.4), after an instruction without memory operand",
    fields: /^fdp$/,
    when: ({ plan, request }) =>
      plan.form !== "memory" && (request.getUint16(REQUEST.FX + FX.FSW, true) & SUMMARY) === 0,
  },
  {
    why: "x87 error pointers that AMD does not save (APM Vol. 2 11.4.4), in images that FXSAVE and XSAVE write; MXCSR_MASK",
    names: /^(FXSAVE|XSAVE|XSAVEC|XSAVEOPT)$/,
    fields: /^\[/,
    // MXCSR_MASK has AMD's misaligned mode besides (APM Vol. 2 11.4.4.1).
    when: (at, field) => within(at, field, [...(noPendingError(at) ? [[6, 24] as const] : []), [28, 32]]),
  },
  {
    why: "x87 error pointers that AMD did not restore before the case (APM Vol. 2 11.4.4), in the environment that FNSTENV writes",
    names: /^(FNSTENV|FNSAVE)$/,
    fields: /^\[/,
    when: (at, field) => noPendingError(at) && within(at, field, [at.plan.size === 16 ? [6, 14] : [12, 28]]),
  },
  {
    why: "#AC and #PF of one access: exceptions of the same priority class come in any order (SDM Vol. 3A Table 6-2, note 1)",
    fields: /^(vector|error|cr2)$/,
    when: ({ host, engine }) => vectorOf(host) === VECTOR.AC && vectorOf(engine) === VECTOR.PF,
  },
  {
    why: "a misaligned image with alignment checking: #AC or #GP, as the processor likes (SDM Vol. 2A FXSAVE, protected mode exceptions)",
    names: /^(FXSAVE|FXRSTOR|XSAVE|XSAVEC|XSAVEOPT|XRSTOR)$/,
    fields: /^vector$/,
    when: ({ host, engine }) => vectorOf(host) === VECTOR.AC && vectorOf(engine) === VECTOR.GP,
  },
  {
    why: "masked-out bytes: AMD checks all of the operand, which the manual leaves open (SDM Vol. 2B MASKMOVDQU)",
    names: /^MASKMOV(Q|DQU)$/,
    fields: /./,
    when: ({ plan, host, engine }) =>
      (vectorOf(host) === VECTOR.PF ||
        vectorOf(host) === VECTOR.AC ||
        (vectorOf(host) === VECTOR.GP && plan.mode === 64)) &&
      ripOf(engine) !== ripOf(host),
  },
  {
    why: "MOVSXD with 16-bit operands reads 16 bits (SDM Vol. 2B MOVSXD), 32 for AMD (APM Vol. 3 MOVSXD)",
    names: /^MOVSXD$/,
    fields: /./,
    when: ({ plan, host }) => plan.size === 16 && (vectorOf(host) === VECTOR.PF || vectorOf(host) === VECTOR.AC),
  },
  {
    why: "flags of a REPE or REPNE that faults: Intel restores them (SDM Vol. 2B REP), AMD leaves those of the last round",
    names: /^REPN?E (CMPS|SCAS)/,
    fields: /^rflags$/,
    when: ({ host, engine }) =>
      vectorOf(host) !== VECTOR.BREAKPOINT &&
      ((host.getUint32(RESULT.RFLAGS, true) ^ engine.getUint32(RESULT.RFLAGS, true)) & ~ARITHMETIC) === 0,
  },
  {
    why: "UD0 and UD1 have a ModRM byte for Intel (SDM Vol. 2D UD), none for AMD (APM Vol. 3 UD0), so they may fault at the next page",
    names: /^UD[01]$/,
    fields: /^(vector|error|cr2)$/,
    when: ({ host, engine }) => vectorOf(host) === VECTOR.UD && vectorOf(engine) === VECTOR.PF,
  },
  {
    why: "which byte of a large image is touched first is nobody's promise; a page fault may name any",
    names:
      /^(FXSAVE|FXRSTOR|XSAVE|XSAVEC|XSAVEOPT|XRSTOR|FRSTOR|FNSAVE|FLDENV|FNSTENV|MASKMOVQ|MASKMOVDQU|POPA|PUSHA|ENTER)$/,
    fields: /^cr2$/,
    when: ({ host, engine }) => {
      // Addresses of 16 bits wrap within the image.
      const distance = BigInt.asIntN(16, cr2Of(host) - cr2Of(engine));
      return vectorOf(host) === VECTOR.PF && vectorOf(engine) === VECTOR.PF && distance > -576n && distance < 576n;
    },
  },
  {
    why: "CMPS with two operands that fault: which one is accessed first is left open (SDM Vol. 2A CMPS)",
    names: /CMPSB?$/,
    fields: /^(vector|error|cr2)$/,
    when: ({ host, engine }) => vectorOf(host) >= VECTOR.SS && vectorOf(engine) >= VECTOR.SS,
  },
  {
    why: "CALL to a non-canonical address with a stack that can't be written either: both are faults of one class (SDM Vol. 3A Table 6-2)",
    names: /^CALL$/,
    fields: /^(vector|error|cr2)$/,
    when: ({ host, engine }) =>
      [VECTOR.SS, VECTOR.PF, VECTOR.AC].some((vector) => vector === vectorOf(host)) && vectorOf(engine) === VECTOR.GP,
  },
  {
    why: "MASKMOVQ that faults: AMD has switched the x87 state to MMX before; with an empty mask faults are a matter of the model (SDM Vol. 2B)",
    names: /^MASKMOVQ$/,
    fields: /^(fsw|ftw|st[0-7])$/,
    when: ({ host }) => vectorOf(host) !== VECTOR.BREAKPOINT && vectorOf(host) !== VECTOR.UD,
  },
  {
    why: "POPA that faults midway: AMD has loaded the registers before, Intel's order of checks is open (SDM Vol. 2B POPA)",
    names: /^POPA$/,
    fields: /^r(ax|cx|dx|bx|bp|si|di)$/,
    when: ({ host }) => vectorOf(host) !== VECTOR.BREAKPOINT,
  },
  {
    why: "REP INS and OUTS with a count of zero do nothing (SDM Vol. 2B REP); AMD checks the I/O privilege before the count",
    names: /^REP (INS|OUTS)B?$/,
    fields: /^(vector|error|cr2|rip|rflags)$/,
    when: ({ host, engine }) => vectorOf(host) === VECTOR.GP && vectorOf(engine) !== VECTOR.GP,
  },
  {
    why: "unordered comparisons with an unmasked invalid operation leave the condition codes alone (SDM Vol. 2A FCOM), for AMD they set them",
    names: /^F(U?COM|ICOM|TST)P?P?$/,
    fields: /^fsw$/,
    when: ({ host, engine }) =>
      (fswOf(host) & (SUMMARY | INVALID)) === (SUMMARY | INVALID) &&
      ((fswOf(host) ^ fswOf(engine)) & ~(C0_C2_C3 | C1)) === 0,
  },
  {
    why: "unordered comparisons to RFLAGS with an unmasked invalid operation leave it alone (SDM Vol. 2A FCOMI), for AMD they set it",
    names: /^FU?COMIP?$/,
    fields: /^rflags$/,
    when: ({ host }) => (fswOf(host) & (SUMMARY | INVALID)) === (SUMMARY | INVALID),
  },
  {
    why: "C1 after a comparison to RFLAGS: cleared (SDM Vol. 2A FCOMI), for AMD unchanged but for a stack fault (APM Vol. 5 FCOMI)",
    names: /^FU?COMIP?$/,
    fields: /^fsw$/,
    when: ({ host, engine }) => ((fswOf(host) ^ fswOf(engine)) & ~C1) === 0,
  },
  {
    why: "bits 16 to 19 of what LAR gives are undefined (SDM Vol. 2A LAR)",
    names: /^LAR$/,
    fields: /^r/,
    when: ({ host, engine }, field) =>
      field !== "rip" && field !== "rflags" && ((gprOf(host, field) ^ gprOf(engine, field)) & ~0xf0000n) === 0n,
  },
  {
    why: "a null selector with an RPL loses it when the host's kernel returns from the exception (SDM Vol. 2A IRET, return to outer level)",
    fields: /^ds, es$/,
    when: ({ host, engine }) =>
      nullFree(host.getUint32(RESULT.DS_AND_ES, true)) === nullFree(engine.getUint32(RESULT.DS_AND_ES, true)),
  },
  {
    why: "the upper half of RSP is undefined when 64-bit code has entered compatibility mode (SDM Vol. 1 3.4.1.1)",
    names: FAR,
    fields: /^rsp$/,
    when: ({ plan, host, engine }) =>
      plan.mode === 64 && inCompatibility(host) && BigInt.asUintN(32, gprOf(host, "rsp") ^ gprOf(engine, "rsp")) === 0n,
  },
  {
    why: "the upper half of RSP with a stack of 16 bits is what the host's kernel left there (espfix, SDM Vol. 1 3.4.1.1)",
    fields: /^rsp$/,
    when: ({ plan, host, engine }) =>
      plan.mode !== 64 && BigInt.asUintN(32, gprOf(host, "rsp") ^ gprOf(engine, "rsp")) === 0n,
  },
  {
    why: "compatibility mode entered with a stack pointer that is not canonical and that the new mode cuts (SDM Vol. 1 3.4.1.1)",
    names: FAR,
    fields: /./,
    when: ({ plan, request, host }) =>
      plan.mode === 64 && request.getBigUint64(REQUEST.GPR + 4 * 8, true) >= 1n << 47n && inCompatibility(host),
  },
  {
    why: "64-bit code entered straight from a 16-bit stack: which width the last pop or push has is not said (SDM Vol. 2A CALL, RET)",
    names: FAR,
    fields: /./,
    when: ({ plan, host, engine }) =>
      plan.mode === 16 &&
      [host, engine].some((result) => (result.getUint32(RESULT.CODE_AND_STACK, true) & 0xffff) === SELECTOR.CODE_64),
  },
  {
    why: "a misaligned operand beyond the limit of the stack segment: faults of one class (SDM Vol. 3A Table 6-2, note 1)",
    fields: /^vector$/,
    when: ({ plan, host, engine }) =>
      plan.mode === 16 && vectorOf(host) === VECTOR.GP && vectorOf(engine) === VECTOR.SS,
  },
  {
    why: "a misaligned image at a non-canonical address off RSP or RBP: faults of one class (SDM Vol. 3A Table 6-2, note 1)",
    names: /^(FXSAVE|FXRSTOR|XSAVE|XSAVEC|XSAVEOPT|XRSTOR)$/,
    fields: /^vector$/,
    when: ({ plan, host, engine }) =>
      plan.mode === 64 && vectorOf(host) === VECTOR.SS && vectorOf(engine) === VECTOR.GP,
  },
  {
    why: "far transfers with several faults: their order differs from the manual's pseudo-code (SDM Vol. 3A Table 6-2, note 1)",
    names: FAR,
    fields: /^(vector|error|cr2)$/,
    when: ({ plan, host, engine }) => isFar(plan) && vectorOf(host) >= VECTOR.NP && vectorOf(engine) >= VECTOR.NP,
  },
  {
    why: "bit 63 of XSTATE_BV is reserved (SDM Vol. 1 13.4.2, 13.8.1), but AMD's models without INVPCID ignore it",
    names: /^XRSTOR$/,
    fields: /./,
    when: ({ request, host, engine }) =>
      vectorOf(host) === VECTOR.BREAKPOINT &&
      vectorOf(engine) === VECTOR.GP &&
      (request.getUint8(REQUEST.PATCH_1 + XSTATE_BV + 7) & 0x80) !== 0,
  },
  {
    why: "LOCK VERW and LOCK PCMPxSTRx are no errors for some of AMD's models, but they are in the manuals (SDM Vol. 2A LOCK; APM Vol. 3 1.2.5)",
    names: /^(VERW|PCMP[EI]STR[IM])$/,
    fields: /./,
    when: ({ host, engine }) => vectorOf(engine) === VECTOR.UD && vectorOf(host) !== VECTOR.UD,
  },
  {
    why: "approximations are not prescribed, only their error (SDM Vol. 2B RCPPS, RSQRTPS)",
    names: /^(RCP|RSQRT)[PS]S$/,
    fields: /^xmm/,
    when: approximatelyEqual,
  },
  {
    why: "transcendental instructions may err by a unit in the last place, and C1 tells of their rounding (SDM Vol. 1 8.3.10)",
    names: /^(F2XM1|FCOS|FPATAN|FPTAN|FSIN|FSINCOS|FYL2X|FYL2XP1)$/,
    fields: /^(st[01]|fsw)$/,
    when: ({ host, engine }, field) =>
      field === "fsw"
        ? ((fswOf(host) ^ fswOf(engine)) & ~C1) === 0
        : unitsApart(extendedAt(host, field), extendedAt(engine, field)) <= 1n,
  },
  {
    why: "LOCK MOV to and from CR0 means CR8 for AMD (APM Vol. 3 MOV CRn), #UD for Intel (SDM Vol. 2A LOCK)",
    names: /^MOV$/,
    fields: /^vector$/,
    when: ({ plan, host, engine }) =>
      plan.row.operands.some(({ kind }) => kind === "C") &&
      vectorOf(host) === VECTOR.GP &&
      vectorOf(engine) === VECTOR.UD,
  },
  {
    why: "SYSENTER and SYSEXIT do not exist in AMD's long mode (APM Vol. 3 SYSEXIT)",
    names: /^SYSEXIT$/,
    fields: /^vector$/,
    when: ({ host, engine }) => vectorOf(host) === VECTOR.UD && vectorOf(engine) === VECTOR.GP,
  },
];

/** Why a field may differ, or undefined. */
export function allowed(
  plan: Plan,
  request: Uint8Array,
  host: DataView,
  engine: DataView,
  field: string,
): string | undefined {
  const at: Outcomes = {
    plan,
    request: new DataView(request.buffer, request.byteOffset, request.byteLength),
    host,
    engine,
  };
  return KNOWN.find(
    ({ names, fields, when }) =>
      (names === undefined || names.test(plan.row.instruction.name)) && fields.test(field) && when(at, field),
  )?.why;
}
