module pulumi-keystore/bench/loadgen

go 1.21
