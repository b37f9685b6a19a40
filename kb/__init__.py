"""FAQs in, similar FAQs out: records, sources, embedder, FAISS index, retriever."""
