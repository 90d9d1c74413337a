// Finds out what kind of kernel a file is, and loads it. A file may be several kinds (Xen is); the order is Multiboot, PVH, Linux bzImage.

import { isElf } from "./elf.ts";
import { BootError } from "./errors.ts";
import type { BootConfig, BootImage } from "./image.ts";
import { loadLinux } from "./linux.ts";
import { isLinuxImage } from "./linux-header.ts";
import { findMultibootHeader, loadMultiboot } from "./multiboot.ts";
import { loadPvh } from "./pvh.ts";

/** First bytes of files that people pass by mistake, and what to do instead. */
const OTHER_FILES: readonly { readonly magic: readonly number[]; readonly advice: string }[] = [
  { magic: [0x1f, 0x8b], advice: "is compressed with gzip; unpack it first" },
  { magic: [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00], advice: "is compressed with xz; unpack it first" },
  { magic: [0x28, 0xb5, 0x2f, 0xfd], advice: "is compressed with zstd; unpack it first" },
  { magic: [0x42, 0x5a, 0x68], advice: "is compressed with bzip2; unpack it first" },
  { magic: [0x30, 0x37, 0x30, 0x37, 0x30], advice: "is a cpio archive; pass it as initrd, and the kernel as kernel" },
  {
    magic: [0x21, 0x3c, 0x61, 0x72, 0x63, 0x68, 0x3e],
    advice: "is a package or archive; pass the kernel that is in it",
  },
  { magic: [0x51, 0x46, 0x49, 0xfb], advice: "is a qcow2 disk image; pass a kernel" },
  {
    magic: [0x4d, 0x5a],
    advice: "is an EFI program and no kernel that can be entered without EFI firmware; pass a Linux bzImage",
  },
];

export function loadKernel(file: Uint8Array, config: BootConfig): BootImage {
  if (file.length === 0) throw new BootError("the kernel file is empty; copy or download it again");
  if (findMultibootHeader(file) !== undefined) return loadMultiboot(file, config);
  if (isElf(file)) return loadPvh(file, config);
  if (isLinuxImage(file)) return loadLinux(file, config);
  const other = OTHER_FILES.find(({ magic }) => magic.every((byte, i) => file[i] === byte));
  if (other !== undefined) throw new BootError(`the kernel file ${other.advice}`);
  throw new BootError(
    "the kernel file is no kernel that can be booted, or is cut short; pass a Linux bzImage, a PVH or a Multiboot kernel",
  );
}
