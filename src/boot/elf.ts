// Executables in ELF, 32 and 64 bits, as far as loading them by their program headers: System V ABI, "Object Files" and "Program Loading",
// and the notes in their PT_NOTE segments. Strict: what is not as the ABI has it is a BootError.

import { BootError, hex } from "./errors.ts";
import type { Placement } from "./placement.ts";
import { Reader } from "./reader.ts";

const MAGIC = 0x464c457f;
const DATA_LITTLE_ENDIAN = 1;
const TYPE = { EXEC: 2, DYN: 3 } as const;
const MACHINE = { i386: 3, x86_64: 62 } as const;
const PT = { LOAD: 1, NOTE: 4 } as const;
/** Far more than any kernel has; bounds the work that a forged file can cause. */
const MAX_SEGMENTS = 512;
const MAX_NOTES = 4096;

interface ClassLayout {
  readonly headerSize: number;
  readonly phoff: number;
  readonly phentsize: number;
  readonly phnum: number;
  readonly programHeaderSize: number;
  /** Offsets in a program header. */
  readonly ph: { offset: number; vaddr: number; paddr: number; filesz: number; memsz: number; align: number };
}

const LAYOUT: { readonly [elfClass: number]: ClassLayout } = {
  1: {
    headerSize: 52,
    phoff: 28,
    phentsize: 42,
    phnum: 44,
    programHeaderSize: 32,
    ph: { offset: 4, vaddr: 8, paddr: 12, filesz: 16, memsz: 20, align: 28 },
  },
  2: {
    headerSize: 64,
    phoff: 32,
    phentsize: 54,
    phnum: 56,
    programHeaderSize: 56,
    ph: { offset: 8, vaddr: 16, paddr: 24, filesz: 32, memsz: 40, align: 48 },
  },
};

export interface ElfSegment {
  readonly type: number;
  readonly vaddr: bigint;
  readonly paddr: number;
  readonly memsz: number;
  readonly align: number;
  /** The bytes that the file has for it: filesz of them. */
  readonly bytes: Uint8Array;
}

export interface Elf {
  readonly bits: 32 | 64;
  readonly entry: bigint;
  readonly segments: readonly ElfSegment[];
}

export interface ElfNote {
  readonly name: string;
  readonly type: number;
  readonly desc: Uint8Array;
}

export function isElf(file: Uint8Array): boolean {
  return file.length >= 4 && new Reader(file, "the file").u32(0) === MAGIC;
}

export function parseElf(file: Uint8Array): Elf {
  const reader = new Reader(file, "the ELF kernel");
  if (!isElf(file)) throw new BootError("the file is no ELF executable; pass a kernel");
  const layout = LAYOUT[reader.u8(4)];
  if (layout === undefined)
    throw new BootError(`the ELF kernel has unknown class ${reader.u8(4)}; copy or download it again`);
  if (reader.u8(5) !== DATA_LITTLE_ENDIAN) throw new BootError("the ELF kernel is not little-endian; use one for x86");
  reader.slice(0, layout.headerSize);
  const machine = reader.u16(18);
  if (machine !== MACHINE.i386 && machine !== MACHINE.x86_64) {
    throw new BootError(`the ELF kernel is for another processor (ELF machine ${machine}); use one for x86`);
  }
  const type = reader.u16(16);
  if (type !== TYPE.EXEC && type !== TYPE.DYN) {
    throw new BootError(`the ELF file is no executable (ELF type ${type}); pass the linked kernel`);
  }
  const wide = layout.headerSize === 64;
  const word = (offset: number, field: string): number => (wide ? reader.address(offset, field) : reader.u32(offset));
  const phoff = word(layout.phoff, "program header offset");
  const phentsize = reader.u16(layout.phentsize);
  const phnum = reader.u16(layout.phnum);
  if (phnum === 0)
    throw new BootError("the ELF kernel has no program headers, so nothing to load; pass the linked kernel");
  if (phnum > MAX_SEGMENTS || phentsize !== layout.programHeaderSize) {
    throw new BootError(
      `the ELF kernel has damaged program headers (${phnum} of ${phentsize} bytes); copy or download it again`,
    );
  }

  const segments: ElfSegment[] = [];
  for (let i = 0; i < phnum; i++) {
    const at = phoff + i * phentsize;
    reader.slice(at, phentsize);
    const segmentType = reader.u32(at);
    if (segmentType !== PT.LOAD && segmentType !== PT.NOTE) continue;
    const filesz = word(at + layout.ph.filesz, "segment size");
    const memsz = word(at + layout.ph.memsz, "segment size");
    if (segmentType === PT.LOAD && filesz > memsz) {
      throw new BootError(
        `segment ${i} of the ELF kernel is larger in the file than in memory; copy or download it again`,
      );
    }
    segments.push({
      type: segmentType,
      vaddr: wide ? reader.u64(at + layout.ph.vaddr) : BigInt(reader.u32(at + layout.ph.vaddr)),
      paddr: word(at + layout.ph.paddr, "physical address"),
      memsz,
      align: word(at + layout.ph.align, "alignment"),
      bytes: reader.slice(word(at + layout.ph.offset, "segment offset"), filesz),
    });
  }
  const entry = wide ? reader.u64(24) : BigInt(reader.u32(24));
  return { bits: wide ? 64 : 32, entry, segments };
}

/** The notes of all PT_NOTE segments. Name and descriptor are padded to 4 bytes, or to 8 in segments aligned so. */
export function elfNotes(elf: Elf): ElfNote[] {
  const notes: ElfNote[] = [];
  for (const segment of elf.segments) {
    if (segment.type !== PT.NOTE) continue;
    const pad = segment.align === 8 ? 8 : 4;
    const up = (value: number) => Math.ceil(value / pad) * pad;
    const reader = new Reader(segment.bytes, "a note of the ELF kernel");
    for (let at = 0; at + 12 <= reader.length && notes.length < MAX_NOTES; ) {
      const nameSize = reader.u32(at);
      const descSize = reader.u32(at + 4);
      const descAt = up(at + 12 + nameSize);
      const name = reader.slice(at + 12, nameSize);
      const end = name.indexOf(0);
      notes.push({
        name: String.fromCharCode(...name.subarray(0, Math.min(end < 0 ? nameSize : end, 64))),
        type: reader.u32(at + 8),
        desc: reader.slice(descAt, descSize),
      });
      at = up(descAt + descSize);
    }
  }
  return notes;
}

/** Loads the PT_LOAD segments at their physical addresses. */
export function placeSegments(elf: Elf, placement: Placement): void {
  const loads = elf.segments.filter((segment) => segment.type === PT.LOAD && segment.memsz > 0);
  if (loads.length === 0) throw new BootError("the ELF kernel has no segment to load; pass the linked kernel");
  loads.forEach((segment, i) => {
    placement.claim(segment.paddr, segment.memsz, `segment ${i} of the kernel`);
    placement.write(segment.paddr, segment.bytes);
    placement.zero(segment.paddr + segment.bytes.length, segment.memsz - segment.bytes.length);
  });
}

/** Whether the physical address lies in what is loaded. */
export function isLoaded(elf: Elf, address: bigint): boolean {
  return elf.segments.some(
    ({ type, paddr, memsz }) => type === PT.LOAD && BigInt(paddr) <= address && address < BigInt(paddr + memsz),
  );
}

/** The physical address of the entry point: kernels linked for high virtual addresses give a virtual one. */
export function physicalEntry(elf: Elf): number {
  const { entry } = elf;
  for (const { type, vaddr, paddr, memsz } of elf.segments) {
    if (type === PT.LOAD && vaddr <= entry && entry < vaddr + BigInt(memsz)) return paddr + Number(entry - vaddr);
  }
  if (isLoaded(elf, entry)) return Number(entry);
  throw new BootError(
    `the ELF kernel's entry point ${hex(entry)} lies outside of what it loads; copy or download it again`,
  );
}
