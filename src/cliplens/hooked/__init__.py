"""hooked"""
