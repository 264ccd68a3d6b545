"""The custodian: who holds each case (当前责任), and until when."""
