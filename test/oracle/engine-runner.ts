// The engine's side: a guest in 64-bit mode at CPL 3 whose address space looks as the harness process does at the places that cases
// reach. Every case ends in an exception; its gate leads to a HLT in the upper half, and the frame on the exception stack tells where
// the guest was. Selectors are those of Linux.

import { compileOnSameThread } from "../../src/cpu/translator/same-thread.ts";
import { Translator } from "../../src/cpu/translator/translator.ts";
import { EXIT } from "../../src/isa/exit.ts";
import {
  ACTIVITY,
  CPL,
  CR0,
  CR0_BIT,
  CR2,
  CR3,
  CR4,
  CR4_BIT,
  EFER,
  EFER_BIT,
  FCS,
  FCW,
  FDP,
  FDS,
  FIP,
  type Field,
  FOP,
  FSW,
  FTW,
  GDTR_BASE,
  GDTR_LIMIT,
  IDTR_BASE,
  IDTR_LIMIT,
  LDTR,
  MXCSR,
  RIP,
  SEGMENTS,
  type SegmentFields,
  SHADOW,
  SREG,
  TR,
  VECTOR_BASE,
  VECTOR_STRIDE,
  X87_BASE,
  XCR0,
} from "../../src/isa/state.ts";
import { INSTRUCTIONS } from "../../src/isa/table.ts";
import { everything, onFault, Rig } from "../cpu/rig.ts";
import { AREA_BYTES, CODE_BASE, DATA_BASE, dataPattern, FX, REQUEST, RESULT, SEGMENT_16, SELECTOR } from "./record.ts";

/** Guest-physical places. */
const PHYSICAL = {
  PML4: 0x1000,
  PDPT: 0x2000,
  PD: 0x3000,
  PT_CODE: 0x4000,
  PT_DATA: 0x5000,
  PDPT_HIGH: 0x6000,
  PD_HIGH: 0x7000,
  GDT: 0x8000,
  LDT: 0x8800,
  TSS: 0x9000,
  IDT: 0xa000,
  HANDLERS: 0xc000,
  STACK_TOP: 0x20000,
  CODE: 0x40_0000,
  DATA: 0x60_0000,
  /** Code pages of the cases of a batch that is translated. */
  BATCH: 0x80_0000,
} as const;

/** Cases that are rehearsed together. */
export const REHEARSED = 64;

/** Where the supervisor sees physical memory. */
const HIGH = 0xffff_8000_0000_0000n;

const KERNEL_CODE = 0x10;
const TSS_SELECTOR = 0x40;
const LDT_SELECTOR = 0x50;
const PRESENT_USER_WRITE = 7n;
const NO_EXECUTE = 1n << 63n;
const LARGE = 0x80n;

/** Vectors that push an error code (SDM Vol. 3A Table 6-1). */
const WITH_ERROR = new Set([8, 10, 11, 12, 13, 14, 17]);

/** Descriptor access rights in the layout of SegmentFields.attr: 64-bit code, 32-bit code, data, all of DPL 3. */
const ATTR = {
  CODE_64: 0xa0fb,
  CODE_32: 0xc0fb,
  DATA: 0xc0f3,
  CODE_16: 0x00fb,
  DATA_16: 0x00f3,
  UNUSABLE: 0x10000,
} as const;

const RUN_LIMIT = 2000;

/** Translates when it is told to, many cases into one module. */
class BatchTranslator extends Translator {
  override work(): void {
    // Not at the end of each run.
  }
  translate(): void {
    super.work();
  }
}

/** A segment descriptor of byte granularity (SDM Vol. 3A 3.4.5). */
function descriptor({ base, limit }: { base: number; limit: number }, attr: number): bigint {
  const low = BigInt(limit & 0xffff) | (BigInt(base & 0xffffff) << 16n);
  return low | (BigInt(attr) << 40n) | (BigInt(limit >> 16) << 48n) | (BigInt(base >>> 24) << 56n);
}

export class EngineRunner {
  readonly rig: Rig;
  #translator: BatchTranslator | undefined;
  readonly #cpu: DataView;
  readonly #cpuBytes: Uint8Array;
  readonly #pattern = dataPattern();
  readonly #patternWords: Int32Array;
  readonly #dataWords: Int32Array;
  readonly #updateMode: () => void;
  #cases = 0;

  /** `translated`: cases are rehearsed, translated, and run again. */
  constructor(translated = false) {
    this.rig = new Rig(
      everything(),
      {},
      translated
        ? (host) => {
            const compiler = compileOnSameThread({ instructions: INSTRUCTIONS, onFault });
            this.#translator = new BatchTranslator(host, { compiler, threshold: 1 });
            return this.#translator;
          }
        : undefined,
    );
    const { engine, ram } = this.rig;
    this.#cpu = new DataView(engine.memory.buffer);
    this.#cpuBytes = new Uint8Array(engine.memory.buffer);
    this.#patternWords = new Int32Array(this.#pattern.buffer);
    this.#dataWords = new Int32Array(ram.buffer, PHYSICAL.DATA, AREA_BYTES / 4);
    // Not registersChanged, which would empty the TLB before each case.
    this.#updateMode = (Reflect.get(engine, "exports") as { updateMode(): void }).updateMode;
    this.#tables();
    engine.reset("power-on");
    const set = (field: Field, value: number | bigint): void => engine.set(field, value);
    set(CR0, (CR0_BIT.PG | CR0_BIT.PE | CR0_BIT.ET | CR0_BIT.NE | CR0_BIT.WP | CR0_BIT.MP | CR0_BIT.AM) >>> 0);
    set(CR3, PHYSICAL.PML4);
    set(CR4, CR4_BIT.PAE | CR4_BIT.OSFXSR | CR4_BIT.OSXMMEXCPT | CR4_BIT.OSXSAVE | CR4_BIT.FSGSBASE);
    set(EFER, EFER_BIT.LME | EFER_BIT.LMA | EFER_BIT.NXE | EFER_BIT.SCE);
    set(XCR0, 3);
    set(GDTR_BASE, HIGH + BigInt(PHYSICAL.GDT));
    set(GDTR_LIMIT, 0x7f);
    set(IDTR_BASE, HIGH + BigInt(PHYSICAL.IDT));
    set(IDTR_LIMIT, 0xfff);
    this.rig.segment(TR, TSS_SELECTOR, 0x8b, 0x67);
    set(TR.base, HIGH + BigInt(PHYSICAL.TSS));
    this.rig.segment(LDTR, LDT_SELECTOR, 0x82, 0xf);
    set(LDTR.base, HIGH + BigInt(PHYSICAL.LDT));
    engine.registersChanged();
    this.rig.bytes.fill(0xcc, PHYSICAL.CODE, PHYSICAL.CODE + AREA_BYTES);
    this.rig.bytes.fill(0xcc, PHYSICAL.BATCH, PHYSICAL.BATCH + REHEARSED * AREA_BYTES);
    this.rig.bytes.set(this.#pattern, PHYSICAL.DATA);
  }

  #tables(): void {
    const { view, bytes } = this.rig;
    const put = (at: number, value: bigint): void => view.setBigUint64(at, value, true);
    bytes.fill(0, 0, PHYSICAL.STACK_TOP);
    put(PHYSICAL.PML4, BigInt(PHYSICAL.PDPT) | PRESENT_USER_WRITE);
    put(PHYSICAL.PML4 + 256 * 8, BigInt(PHYSICAL.PDPT_HIGH) | PRESENT_USER_WRITE);
    put(PHYSICAL.PDPT, BigInt(PHYSICAL.PD) | PRESENT_USER_WRITE);
    put(PHYSICAL.PD + (CODE_BASE >> 21) * 8, BigInt(PHYSICAL.PT_CODE) | PRESENT_USER_WRITE);
    put(PHYSICAL.PD + (DATA_BASE >> 21) * 8, BigInt(PHYSICAL.PT_DATA) | PRESENT_USER_WRITE);
    for (let page = 0; page < AREA_BYTES / 4096; page++) {
      put(PHYSICAL.PT_CODE + page * 8, BigInt(PHYSICAL.CODE + page * 4096) | PRESENT_USER_WRITE);
      put(PHYSICAL.PT_DATA + page * 8, BigInt(PHYSICAL.DATA + page * 4096) | PRESENT_USER_WRITE | NO_EXECUTE);
    }
    put(PHYSICAL.PDPT_HIGH, BigInt(PHYSICAL.PD_HIGH) | 3n);
    for (let n = 0; n < 8; n++) put(PHYSICAL.PD_HIGH + n * 8, (BigInt(n) << 21n) | LARGE | 3n);
    put(PHYSICAL.GDT + 0x08, 0x00cf9b000000ffffn);
    put(PHYSICAL.GDT + KERNEL_CODE, 0x00af9b000000ffffn);
    put(PHYSICAL.GDT + 0x18, 0x00cf93000000ffffn);
    put(PHYSICAL.GDT + 0x20, 0x00cffb000000ffffn);
    put(PHYSICAL.GDT + 0x28, 0x00cff3000000ffffn);
    put(PHYSICAL.GDT + 0x30, 0x00affb000000ffffn);
    put(PHYSICAL.LDT, descriptor(SEGMENT_16.CODE, ATTR.CODE_16));
    put(PHYSICAL.LDT + 8, descriptor(SEGMENT_16.DATA, ATTR.DATA_16));
    view.setBigUint64(PHYSICAL.TSS + 4, HIGH + BigInt(PHYSICAL.STACK_TOP), true);
    // No I/O permission bit map.
    view.setUint16(PHYSICAL.TSS + 0x66, 0xffff, true);
    for (let vector = 0; vector < 256; vector++) {
      const handler = HIGH + BigInt(PHYSICAL.HANDLERS + vector * 16);
      bytes[PHYSICAL.HANDLERS + vector * 16] = 0xf4;
      const gate = PHYSICAL.IDT + vector * 16;
      put(
        gate,
        (handler & 0xffffn) | (BigInt(KERNEL_CODE) << 16n) | (0xeen << 40n) | (((handler >> 16n) & 0xffffn) << 48n),
      );
      put(gate + 8, handler >> 32n);
    }
  }

  #segment(fields: SegmentFields, selector: number, attr: number, limit = 0xffffffff, base = 0): void {
    const { engine } = this.rig;
    engine.set(fields.selector, selector);
    engine.set(fields.attr, attr);
    engine.set(fields.limit, attr === ATTR.UNUSABLE ? 0 : limit);
    engine.set(fields.base, base);
  }

  /** Maps the code pages of a place in a batch. */
  #mapCode(base: number): void {
    const { view, engine } = this.rig;
    const entry = BigInt(base) | PRESENT_USER_WRITE;
    if (((view.getBigUint64(PHYSICAL.PT_CODE, true) ^ entry) & ~0xfffn) === 0n) return;
    for (let page = 0; page < AREA_BYTES / 4096; page++)
      view.setBigUint64(PHYSICAL.PT_CODE + page * 8, entry + BigInt(page * 4096), true);
    engine.registersChanged();
  }

  #enter(request: Uint8Array, q: DataView, base: number, isNew: boolean): void {
    const { engine, bytes } = this.rig;
    const cpu = this.#cpu;
    const narrow = q.getUint32(REQUEST.MODE, true) === 2;
    this.#cpuBytes.set(request.subarray(REQUEST.GPR, REQUEST.GPR + 128), 0);
    const { CODE, DATA } = SEGMENT_16;
    const code64 = q.getUint32(REQUEST.MODE, true) === 0;
    if (narrow) this.#segment(SEGMENTS[SREG.CS], SELECTOR.CODE_16, ATTR.CODE_16, CODE.limit, CODE.base);
    else if (code64) this.#segment(SEGMENTS[SREG.CS], SELECTOR.CODE_64, ATTR.CODE_64);
    else this.#segment(SEGMENTS[SREG.CS], SELECTOR.CODE_32, ATTR.CODE_32);
    for (const n of [SREG.SS, SREG.DS, SREG.ES]) {
      if (narrow) this.#segment(SEGMENTS[n], SELECTOR.DATA_16, ATTR.DATA_16, DATA.limit, DATA.base);
      else this.#segment(SEGMENTS[n], SELECTOR.DATA, ATTR.DATA);
    }
    for (const n of [SREG.FS, SREG.GS]) this.#segment(SEGMENTS[n], 0, ATTR.UNUSABLE);
    engine.set(CPL, 3);
    engine.set(ACTIVITY, 0);
    engine.set(SHADOW, 0);
    engine.set(CR2, 0);
    const rip = Number(q.getBigUint64(REQUEST.RIP, true));
    cpu.setBigUint64(RIP.offset, BigInt(narrow ? rip - CODE.base : rip), true);
    engine.setRflags(Number(q.getBigUint64(REQUEST.RFLAGS, true)));

    const fx = REQUEST.FX;
    const fsw = q.getUint16(fx + FX.FSW, true);
    const top = (fsw >> 11) & 7;
    cpu.setUint32(FCW.offset, q.getUint16(fx + FX.FCW, true), true);
    cpu.setUint32(FSW.offset, fsw, true);
    cpu.setUint32(FTW.offset, request[fx + FX.FTW], true);
    cpu.setUint32(FOP.offset, q.getUint16(fx + FX.FOP, true), true);
    cpu.setBigUint64(FIP.offset, q.getBigUint64(fx + FX.FIP, true), true);
    cpu.setUint32(FCS.offset, 0, true);
    cpu.setUint32(FDS.offset, 0, true);
    cpu.setBigUint64(FDP.offset, q.getBigUint64(fx + FX.FDP, true), true);
    cpu.setUint32(MXCSR.offset, q.getUint32(fx + FX.MXCSR, true), true);
    for (let n = 0; n < 8; n++) {
      const at = fx + FX.ST + n * 16;
      this.#cpuBytes.set(request.subarray(at, at + 16), X87_BASE + ((top + n) & 7) * 16);
    }
    for (let n = 0; n < 16; n++) {
      const at = fx + FX.XMM + n * 16;
      this.#cpuBytes.set(request.subarray(at, at + 16), VECTOR_BASE + n * VECTOR_STRIDE);
    }
    this.#updateMode();

    const length = q.getUint32(REQUEST.LENGTH, true);
    const code = base + rip - CODE_BASE;
    if (isNew) {
      bytes.set(request.subarray(REQUEST.CODE, REQUEST.CODE + length), code);
      engine.memoryWritten(code, length);
    }
    for (let slot = 0; slot < 2; slot++) {
      const count = q.getUint32(REQUEST.PATCHES + slot * 8 + 4, true);
      if (count === 0) continue;
      const from = slot === 0 ? REQUEST.PATCH_0 : REQUEST.PATCH_1;
      const at = q.getUint32(REQUEST.PATCHES + slot * 8, true) - DATA_BASE + PHYSICAL.DATA;
      bytes.set(request.subarray(from, from + count), at);
    }
  }

  #leave(q: DataView, vector: number, out: Uint8Array, r: DataView, base: number): number {
    const { view, bytes, engine } = this.rig;
    const cpu = this.#cpu;
    out.fill(0, 0, RESULT.HEAD);
    const top64 = PHYSICAL.STACK_TOP;
    r.setUint32(RESULT.VECTOR, vector, true);
    out.set(this.#cpuBytes.subarray(0, 128), RESULT.GPR);
    if (vector < 255) {
      if (WITH_ERROR.has(vector)) r.setUint32(RESULT.ERROR, view.getUint32(top64 - 48, true), true);
      if (vector === 14) r.setBigUint64(RESULT.CR2, cpu.getBigUint64(CR2.offset, true), true);
      r.setBigUint64(RESULT.RIP, view.getBigUint64(top64 - 40, true), true);
      r.setBigUint64(RESULT.RFLAGS, view.getBigUint64(top64 - 24, true), true);
      r.setUint32(
        RESULT.CODE_AND_STACK,
        view.getUint16(top64 - 32, true) | (view.getUint16(top64 - 8, true) << 16),
        true,
      );
      r.setBigUint64(RESULT.GPR + 4 * 8, view.getBigUint64(top64 - 16, true), true);
    }
    const selector = (n: number): number => cpu.getUint16(SEGMENTS[n].selector.offset, true);
    r.setUint32(RESULT.DS_AND_ES, selector(SREG.DS) | (selector(SREG.ES) << 16), true);

    const fx = RESULT.FX;
    const fsw = cpu.getUint32(FSW.offset, true);
    const top = (fsw >> 11) & 7;
    r.setUint16(fx + FX.FCW, cpu.getUint32(FCW.offset, true), true);
    r.setUint16(fx + FX.FSW, fsw, true);
    out[fx + FX.FTW] = cpu.getUint32(FTW.offset, true);
    r.setUint16(fx + FX.FOP, cpu.getUint32(FOP.offset, true), true);
    r.setBigUint64(fx + FX.FIP, cpu.getBigUint64(FIP.offset, true), true);
    r.setBigUint64(fx + FX.FDP, cpu.getBigUint64(FDP.offset, true), true);
    r.setUint32(fx + FX.MXCSR, cpu.getUint32(MXCSR.offset, true), true);
    for (let n = 0; n < 8; n++) {
      const at = X87_BASE + ((top + n) & 7) * 16;
      out.set(this.#cpuBytes.subarray(at, at + 16), fx + FX.ST + n * 16);
    }
    for (let n = 0; n < 16; n++) {
      const at = VECTOR_BASE + n * VECTOR_STRIDE;
      out.set(this.#cpuBytes.subarray(at, at + 16), fx + FX.XMM + n * 16);
    }

    const length = q.getUint32(REQUEST.LENGTH, true);
    const code = base + Number(q.getBigUint64(REQUEST.RIP, true)) - CODE_BASE;
    bytes.fill(0xcc, code, code + length);
    engine.memoryWritten(code, length);
    const now = this.#dataWords;
    const was = this.#patternWords;
    let changed = 0;
    let at = RESULT.HEAD as number;
    for (let n = 0; n < was.length; n++) {
      if (now[n] === was[n]) continue;
      r.setUint32(at, n, true);
      r.setInt32(at + 4, now[n], true);
      now[n] = was[n];
      at += 8;
      changed++;
    }
    r.setUint32(RESULT.CHANGED, changed, true);
    return at;
  }

  #execute(): number {
    const { engine } = this.rig;
    let reason: number = EXIT.BUDGET;
    for (let n = 0; n < RUN_LIMIT && reason !== EXIT.HLT && reason !== EXIT.SHUTDOWN; n++) reason = engine.run(100);
    return reason;
  }

  /** Runs up to REHEARSED requests for the translator to see, in front of `run` with their places. */
  rehearse(requests: readonly Uint8Array[]): void {
    if (this.#translator === undefined) return;
    const { ram } = this.rig;
    const data = new Uint8Array(ram.buffer, PHYSICAL.DATA, AREA_BYTES);
    requests.forEach((request, place) => {
      const q = new DataView(request.buffer, request.byteOffset, request.byteLength);
      const base = PHYSICAL.BATCH + place * AREA_BYTES;
      this.#mapCode(base);
      this.#enter(request, q, base, true);
      this.#execute();
      data.set(this.#pattern);
    });
    this.#translator.translate();
  }

  /** Runs one request; writes the result to the start of `out` and gives its length. `place`: where among those that were rehearsed. */
  run(request: Uint8Array, out: Uint8Array, place = 0): number {
    const { engine } = this.rig;
    const q = new DataView(request.buffer, request.byteOffset, request.byteLength);
    const r = new DataView(out.buffer, out.byteOffset, out.byteLength);
    const rehearsed = this.#translator !== undefined;
    const base = rehearsed ? PHYSICAL.BATCH + place * AREA_BYTES : PHYSICAL.CODE;
    this.#mapCode(base);
    this.#enter(request, q, base, !rehearsed);
    // Now and then from an empty TLB.
    if (this.#cases++ % 16 === 0) engine.registersChanged();
    const reason = this.#execute();
    const handler = Number(BigInt.asUintN(32, engine.get(RIP) as bigint)) - 1;
    const vector = reason === EXIT.HLT ? (handler - PHYSICAL.HANDLERS) / 16 : reason === EXIT.SHUTDOWN ? 254 : 255;
    return this.#leave(q, vector, out, r, base);
  }
}
