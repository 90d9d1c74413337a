// The setup header of a Linux bzImage and the fields of boot_params ("zero page") that a loader reads or writes:
// Documentation/arch/x86/boot.rst and zero-page.rst of the kernel. The header has the same offsets in the file and in boot_params.

import { BootError } from "./errors.ts";
import { Reader } from "./reader.ts";

/** Offsets of the fields, from the start of the file and of boot_params. */
export const HEADER = {
  setup_sects: 0x1f1,
  syssize: 0x1f4,
  boot_flag: 0x1fe,
  jump_length: 0x201,
  header: 0x202,
  version: 0x206,
  kernel_version: 0x20e,
  type_of_loader: 0x210,
  loadflags: 0x211,
  ramdisk_image: 0x218,
  ramdisk_size: 0x21c,
  cmd_line_ptr: 0x228,
  initrd_addr_max: 0x22c,
  kernel_alignment: 0x230,
  relocatable_kernel: 0x234,
  xloadflags: 0x236,
  cmdline_size: 0x238,
  setup_data: 0x250,
  pref_address: 0x258,
  init_size: 0x260,
} as const;

/** Fields of boot_params outside the header. */
export const BOOT_PARAMS = {
  acpi_rsdp_addr: 0x070,
  ext_ramdisk_image: 0x0c0,
  ext_ramdisk_size: 0x0c4,
  ext_cmd_line_ptr: 0x0c8,
  e820_entries: 0x1e8,
  e820_table: 0x2d0,
  size: 0x1000,
  maxE820: 128,
} as const;

const BOOT_FLAG = 0xaa55;
const HDRS = 0x53726448;
/** The first version whose xloadflags say whether there is a 64-bit entry. */
const VERSION_XLOADFLAGS = 0x20c;
const LOADED_HIGH = 1 << 0;
const XLF_KERNEL_64 = 1 << 0;
const XLF_CAN_BE_LOADED_ABOVE_4G = 1 << 1;
/** The 64-bit entry point, from the start of the protected-mode code. */
export const ENTRY_64_OFFSET = 0x200;
const SECTOR = 512;
const PARAGRAPH = 16;

export interface LinuxHeader {
  /** The header as it stands in the file, from offset 1f1h. */
  readonly bytes: Uint8Array;
  /** The protected-mode code. */
  readonly code: Uint8Array;
  readonly initrdEnd: number;
  readonly initrdAbove4G: boolean;
  readonly alignment: number;
  readonly relocatable: boolean;
  readonly commandLineSize: number;
  readonly preferredAddress: number;
  readonly initSize: number;
}

const versionText = (version: number): string => `${version >> 8}.${String(version & 0xff).padStart(2, "0")}`;

/** Whether the file starts as a Linux kernel image does. */
export function isLinuxImage(file: Uint8Array): boolean {
  if (file.length < HEADER.version) return false;
  const reader = new Reader(file, "the kernel");
  return reader.u16(HEADER.boot_flag) === BOOT_FLAG && reader.u32(HEADER.header) === HDRS;
}

/** Reads and checks the header; every way in which it can be unusable is a BootError. */
export function parseLinuxHeader(file: Uint8Array): LinuxHeader {
  if (!isLinuxImage(file))
    throw new BootError("the file is no Linux kernel image (bzImage); pass the kernel's vmlinuz file");
  const reader = new Reader(file, "the Linux kernel");
  const version = reader.u16(HEADER.version);
  if (version < VERSION_XLOADFLAGS) {
    throw new BootError(
      `the Linux kernel is too old: boot protocol ${versionText(version)}, and ${versionText(VERSION_XLOADFLAGS)} (Linux 3.8) is needed`,
    );
  }
  const headerEnd = HEADER.header + reader.u8(HEADER.jump_length);
  if (headerEnd < HEADER.init_size + 4)
    throw new BootError("the Linux kernel has a damaged setup header; copy or download it again");
  const bytes = reader.slice(HEADER.setup_sects, headerEnd - HEADER.setup_sects);
  if ((reader.u8(HEADER.loadflags) & LOADED_HIGH) === 0) {
    throw new BootError("the Linux kernel is a zImage, which loads into low memory; use a bzImage");
  }
  const xloadflags = reader.u16(HEADER.xloadflags);
  if ((xloadflags & XLF_KERNEL_64) === 0) {
    throw new BootError(
      "the Linux kernel has no 64-bit entry point (it is a 32-bit kernel); use a 64-bit (amd64) kernel",
    );
  }

  // Zero means four: the value of kernels before the field (boot.rst, "setup_sects").
  const setupSectors = reader.u8(HEADER.setup_sects) || 4;
  const codeOffset = (setupSectors + 1) * SECTOR;
  const code = reader.slice(codeOffset, reader.u32(HEADER.syssize) * PARAGRAPH);
  if (code.length <= ENTRY_64_OFFSET)
    throw new BootError("the Linux kernel contains no code; copy or download it again");
  const alignment = reader.u32(HEADER.kernel_alignment);
  if (alignment === 0 || (alignment & (alignment - 1)) !== 0) {
    throw new BootError(
      `the Linux kernel has a damaged setup header (alignment ${alignment}); copy or download it again`,
    );
  }
  return {
    bytes,
    code,
    initrdEnd: reader.u32(HEADER.initrd_addr_max) + 1,
    initrdAbove4G: (xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G) !== 0,
    alignment,
    relocatable: reader.u8(HEADER.relocatable_kernel) !== 0,
    commandLineSize: reader.u32(HEADER.cmdline_size),
    preferredAddress: reader.address(HEADER.pref_address, "preferred load address"),
    initSize: Math.max(reader.u32(HEADER.init_size), code.length),
  };
}
