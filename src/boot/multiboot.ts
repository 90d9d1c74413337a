// Multiboot 1: Multiboot Specification 0.6.96, section 3 (header, machine state, information structure).

import { RecordWriter } from "../firmware/record.ts";
import { protectedModeState } from "./cpu-state.ts";
import { isElf, parseElf, physicalEntry, placeSegments } from "./elf.ts";
import { BootError, hex } from "./errors.ts";
import { type BootConfig, type BootImage, type BootModule, cString } from "./image.ts";
import { LOADER_DATA_BASE, Placement } from "./placement.ts";
import { Reader } from "./reader.ts";

const HEADER_MAGIC = 0x1badb002;
const BOOTLOADER_MAGIC = 0x2badb002n;
/** The header lies in the first 8192 bytes, at a multiple of 4 (3.1). */
const SEARCH_LENGTH = 8192;
const FLAG = {
  PAGE_ALIGN: 1 << 0,
  MEMORY_INFO: 1 << 1,
  VIDEO_MODE: 1 << 2,
  /** Bits 15:0 are demands: what is not understood must not be booted (3.1.2). */
  REQUIRED: 0xffff,
  AOUT_KLUDGE: 1 << 16,
} as const;
const INFO = { MEMORY: 1 << 0, CMDLINE: 1 << 2, MODS: 1 << 3, MMAP: 1 << 6, LOADER_NAME: 1 << 9 } as const;
const LOADER_NAME = "skep";
const PAGE = 0x1000;
const MIB = 0x100000;
const FOUR_GIB = 0x100000000;
const INFO_LENGTH = 116;
const low = { align: 16, min: LOADER_DATA_BASE, max: FOUR_GIB };

export interface MultibootHeader {
  /** Where in the file it was found. */
  readonly offset: number;
  readonly flags: number;
}

/** Looks for the header; undefined where there is none with a right checksum. */
export function findMultibootHeader(file: Uint8Array): MultibootHeader | undefined {
  const reader = new Reader(file, "the Multiboot kernel");
  const end = Math.min(file.length, SEARCH_LENGTH);
  for (let offset = 0; offset + 12 <= end; offset += 4) {
    if (reader.u32(offset) !== HEADER_MAGIC) continue;
    const flags = reader.u32(offset + 4);
    if ((HEADER_MAGIC + flags + reader.u32(offset + 8)) % FOUR_GIB === 0) return { offset, flags };
  }
  return undefined;
}

/** Loads an image by the addresses in its header (3.1.3); the result is the entry point. */
function placeByHeader(file: Uint8Array, header: MultibootHeader, placement: Placement): number {
  const reader = new Reader(file, "the Multiboot kernel");
  const [headerAddr, loadAddr, loadEndAddr, bssEndAddr, entryAddr] = [12, 16, 20, 24, 28].map((o) =>
    reader.u32(header.offset + o),
  );
  const damaged = (what: string) =>
    new BootError(`the Multiboot kernel's header is wrong: ${what}; link the kernel again`);
  if (loadAddr > headerAddr) throw damaged(`load_addr ${hex(loadAddr)} is above header_addr ${hex(headerAddr)}`);
  const start = header.offset - (headerAddr - loadAddr);
  if (start < 0) throw damaged(`load_addr ${hex(loadAddr)} lies before the start of the file`);
  // Zero: all of the file is loaded.
  const length = loadEndAddr === 0 ? file.length - start : loadEndAddr - loadAddr;
  if (length <= 0) throw damaged(`load_end_addr ${hex(loadEndAddr)} is not above load_addr ${hex(loadAddr)}`);
  const bytes = reader.slice(start, length);
  const loadEnd = loadAddr + length;
  const bssEnd = bssEndAddr === 0 ? loadEnd : bssEndAddr;
  if (bssEnd < loadEnd) throw damaged(`bss_end_addr ${hex(bssEndAddr)} is below the end of the data ${hex(loadEnd)}`);
  if (entryAddr < loadAddr || entryAddr >= bssEnd)
    throw damaged(`entry_addr ${hex(entryAddr)} lies outside of what is loaded`);
  placement.claim(loadAddr, bssEnd - loadAddr, "the kernel");
  placement.write(loadAddr, bytes);
  placement.zero(loadEnd, bssEnd - loadEnd);
  return entryAddr;
}

function checkFlags(flags: number): void {
  if ((flags & FLAG.VIDEO_MODE) !== 0) {
    throw new BootError(
      "the Multiboot kernel demands a video mode (header flag 2), which this machine can't set; build it without",
    );
  }
  const unknown = flags & FLAG.REQUIRED & ~(FLAG.PAGE_ALIGN | FLAG.MEMORY_INFO);
  if (unknown !== 0)
    throw new BootError(`the Multiboot kernel demands features that don't exist (header flags ${hex(unknown)})`);
}

export function loadMultiboot(kernel: Uint8Array, config: BootConfig): BootImage {
  const header = findMultibootHeader(kernel);
  if (header === undefined)
    throw new BootError("the file has no Multiboot header in its first 8192 bytes; pass a Multiboot kernel");
  checkFlags(header.flags);
  const placement = new Placement(config.e820);
  let entry: number;
  if ((header.flags & FLAG.AOUT_KLUDGE) !== 0) entry = placeByHeader(kernel, header, placement);
  else if (isElf(kernel)) {
    const elf = parseElf(kernel);
    placeSegments(elf, placement);
    entry = physicalEntry(elf);
    if (entry >= FOUR_GIB)
      throw new BootError(`the Multiboot kernel's entry point ${hex(entry)} is above 4 GiB; link it lower`);
  } else {
    throw new BootError(
      "the Multiboot kernel is no ELF file and its header gives no load addresses (flag 16); link it as ELF",
    );
  }

  const initrd: BootModule[] =
    config.initrd && config.initrd.length > 0 ? [{ bytes: config.initrd, text: "initrd" }] : [];
  const modules = [...initrd, ...(config.modules ?? [])];
  const list = new RecordWriter();
  for (const { bytes, text } of modules) {
    const at = placement.put(`module "${text}"`, bytes, { align: PAGE, min: MIB, max: FOUR_GIB });
    list.u32(at, at + bytes.length, placement.put("a module's text", cString(text, "module's text"), low), 0);
  }
  const listAt = modules.length === 0 ? 0 : placement.put("the module list", list.finish(), low);
  const line = [config.kernelName ?? "", config.commandLine].filter((part) => part !== "").join(" ");
  const lineAt = placement.put("the command line", cString(line, "command line"), low);
  const nameAt = placement.put("the loader's name", cString(LOADER_NAME, "loader's name"), low);
  // An entry's size field does not count itself (3.3).
  const map = new RecordWriter();
  for (const { base, length, type } of config.e820) map.u32(20).u64(base, length).u32(type);
  const mapBytes = map.finish();
  const mapAt = placement.put("the memory map", mapBytes, low);

  const kib = (bytes: number): number => Math.min(Math.floor(bytes / 1024), 0xffffffff);
  const info = new RecordWriter();
  info.u32(INFO.MEMORY | INFO.CMDLINE | INFO.MODS | INFO.MMAP | INFO.LOADER_NAME);
  info.u32(kib(placement.ramEnd(0)), kib(placement.ramEnd(MIB) - MIB), 0, lineAt, modules.length, listAt);
  info.zeros(16).u32(mapBytes.length, mapAt, 0, 0, 0, nameAt).padTo(INFO_LENGTH);
  const infoAt = placement.put("the Multiboot information", info.finish(), low);
  return {
    protocol: "multiboot",
    zeros: placement.zeros,
    writes: placement.writes,
    cpu: protectedModeState(entry, { rax: BOOTLOADER_MAGIC, rbx: BigInt(infoAt) }),
  };
}
