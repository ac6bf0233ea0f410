/* bcryptprimitives.dll, which Wine 8 lacks: std's source of random numbers. */
unsigned char __stdcall SystemFunction036(void *buffer, unsigned long size); /* of advapi32 */

__declspec(dllexport) int __stdcall ProcessPrng(unsigned char *buffer, unsigned long long size) {
    for (; size > 0x10000; buffer += 0x10000, size -= 0x10000)
        if (!SystemFunction036(buffer, 0x10000)) return 0;
    return SystemFunction036(buffer, (unsigned long)size);
}
