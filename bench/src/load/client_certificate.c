/* Gives every TLS client of a program a certificate: h2load has no option for one. Loaded by LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>

#define SSL_FILETYPE_PEM 1

/* Declared here, so that the headers of OpenSSL need not be installed. */
int SSL_CTX_use_certificate_chain_file(void *context, const char *file);
int SSL_CTX_use_PrivateKey_file(void *context, const char *file, int type);

void *SSL_CTX_new(const void *method) {
    void *(*make)(const void *) = (void *(*)(const void *))dlsym(RTLD_NEXT, "SSL_CTX_new");
    void *context = make(method);
    const char *chain = getenv("BENCH_CHAIN"), *key = getenv("BENCH_KEY");
    if (!context || !chain || !key || SSL_CTX_use_certificate_chain_file(context, chain) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1)
        abort();
    return context;
}
