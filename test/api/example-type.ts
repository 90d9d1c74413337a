// What the example of docs/api.md exports.

export declare function sumInGuest(kernel: string, initrd: Uint8Array): Promise<string>;
