"""The process of a rank: its main thread, which runs commands and tasks and answers its agent."""
