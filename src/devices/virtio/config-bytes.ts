// Little-endian fields of a device's configuration space, read with any width (VIRTIO 1.2, 2.5, 4.1.3.1).

import type { AccessSize } from "../../vmm/bus.ts";

export function readBytes(bytes: Uint8Array, offset: number, size: AccessSize): number {
  let value = 0;
  for (let i = 0; i < size; i++) value |= (bytes[offset + i] ?? 0) << (8 * i);
  return value >>> 0;
}
